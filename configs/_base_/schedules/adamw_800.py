# 800 iterations of AdamW: linear warm-up, then half a cosine. Who takes it counts
# iterations, so must also set `by_epoch=False` in log_processor and checkpoint hook,
# and `log_metric_by_epoch=False` in the logger hook.
max_iters = 800
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
paramwise_cfg = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bypass_duplicate=True)
if '{{$BACKBONE_CHECKPOINT:none}}' != 'none':
    # Fine-tuning: trained layers are moved less than new ones.
    paramwise_cfg['custom_keys'] = dict(backbone=dict(lr_mult=0.1))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.004, weight_decay=0.05),
    paramwise_cfg=paramwise_cfg,
    clip_grad=dict(max_norm=10.0))
del paramwise_cfg
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=False, begin=100,
         end=max_iters),
]
