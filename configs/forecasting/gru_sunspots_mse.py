# A small GRU on the yearly sunspot numbers 1700-2008 (pip install .[forecasting]).
custom_imports = dict(
    imports=[
        'daal_mmdet.forecasting',
        'daal_mmdet.losses.adaptive_dynamic_loss',
        'daal_mmdet.losses.kalman_loss',
    ],
    allow_failed_imports=False)
default_scope = 'mmdet'

# Three solar cycles of about 11 years in, one out.
context, horizon = 33, 11
dataset = dict(
    type='SeriesWindows',
    series='statsmodels:sunspots',
    columns=['SUNACTIVITY'],
    fractions=(0.6, 0.2, 0.2),
    context=context,
    horizon=horizon)
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='train', **dataset))
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='val', test_mode=True, **dataset))
test_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='test', test_mode=True, **dataset))
val_evaluator = dict(type='ForecastingMetric')
test_evaluator = dict(type='ForecastingMetric')

model = dict(
    type='GRUForecaster',
    channels=1,
    hidden_size=64,
    horizon=horizon,
    loss=dict(type='MSELoss'))

# The validation error is lowest after 20 to 80 iterations, then the GRU overfits.
max_iters = 120
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=0.003),
    clip_grad=dict(max_norm=1.0))

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=max_iters,
        save_best='forecast/MSE', rule='less'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(type='LogProcessor', by_epoch=False)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
