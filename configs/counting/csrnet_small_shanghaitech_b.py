# CSRNet alone, the first of the four schemes. At half size a crop holds four times the
# people, of whom part B has few.
_base_ = [
    '../_base_/models/csrnet_small.py',
    '../_base_/datasets/shanghaitech_b.py',
    '../_base_/schedules/crowd_small.py',
]
halve = dict(type='RandomCrowdScale', scale_range=(0.5, 0.5))
load_density = dict(
    type='LoadDensityMap',
    kernel='fixed',
    sigma=15.0,
    cache_dir='work_dirs/density_maps/shanghaitech_b')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    load_density,
    halve,
    dict(type='RandomCrowdCrop', crop_size=256),
    dict(type='RandomCrowdFlip', prob=0.5),
    dict(type='PackCrowdInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    load_density,
    halve,
    dict(type='PackCrowdInputs'),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
max_iters = 400
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_iters, eta_min=2e-5, by_epoch=False)
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
