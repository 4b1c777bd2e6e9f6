# A small RetinaNet on mini COCO: shows that every step works, not how well. One
# evaluation at the end, on the images for testing: nothing may be chosen by it.
_base_ = [
    '../_base_/models/retinanet_mobilenetv2.py',
    '../_base_/datasets/coco_mini.py',
    '../_base_/schedules/adamw_16e.py',
    '../_base_/scale_runtime.py',
]
train_cfg = dict(max_epochs=4)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler'),
    dataset=dict(pipeline=[dict(type='LoadImageOrSkip'), *_base_.train_pipeline[1:]]))
val_dataloader = dict(_delete_=True, **_base_.test_dataloader)
val_evaluator = dict(_delete_=True, **_base_.test_evaluator)
