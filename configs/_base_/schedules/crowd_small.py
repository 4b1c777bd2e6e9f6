# About 75 s on one CPU core with the small CSRNet and batches of 8 crops.
_base_ = '../counting_runtime.py'
max_iters = 600
warm_up = 50
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.02, begin=0, end=warm_up, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        T_max=max_iters - warm_up,
        eta_min=1e-5,
        begin=warm_up,
        end=max_iters,
        by_epoch=False),
]
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1))
log_processor = dict(window_size=10, by_epoch=False)
