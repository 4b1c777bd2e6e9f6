# 16 epochs of AdamW: linear warm-up, then half a cosine.
max_epochs = 16
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
paramwise_cfg = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bypass_duplicate=True)
if '{{$BACKBONE_CHECKPOINT:none}}' != 'none':
    # Fine-tuning: trained layers are moved less than new ones.
    paramwise_cfg['custom_keys'] = dict(backbone=dict(lr_mult=0.1))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.05),
    paramwise_cfg=paramwise_cfg,
    clip_grad=dict(max_norm=35.0))
del paramwise_cfg
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min_ratio=0.01,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True)
]
# The learning rate is for 8 images an iteration.
auto_scale_lr = dict(enable=False, base_batch_size=8)
