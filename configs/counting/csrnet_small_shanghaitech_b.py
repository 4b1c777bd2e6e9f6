# CSRNet alone, the first of the four schemes.
_base_ = [
    '../_base_/models/csrnet_small.py',
    '../_base_/datasets/shanghaitech_b.py',
    '../_base_/schedules/crowd_small.py',
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline={{_base_.small_train_pipeline}}))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline={{_base_.small_test_pipeline}}))
test_dataloader = val_dataloader
# It learns faster than the other sets.
max_iters = 400
warm_up = 50
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, begin=0, end=warm_up, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        T_max=max_iters - warm_up,
        eta_min=1e-5,
        begin=warm_up,
        end=max_iters,
        by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
