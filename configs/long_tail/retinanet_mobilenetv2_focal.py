# A small RetinaNet on the generated long-tailed scenes, from scratch.
_base_ = [
    '../_base_/models/retinanet_mobilenetv2.py',
    '../_base_/datasets/long_tail.py',
    '../_base_/schedules/adamw_800.py',
    '../_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=12))
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=200))
log_processor = dict(by_epoch=False)
