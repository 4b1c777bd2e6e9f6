# CSRNet alone, the first of the four schemes.
_base_ = [
    '../_base_/models/csrnet_small.py',
    '../_base_/datasets/shanghaitech_a.py',
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
