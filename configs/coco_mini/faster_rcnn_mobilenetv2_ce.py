# A small Faster R-CNN on 126 images of COCO.
_base_ = [
    '../_base_/models/faster_rcnn_mobilenetv2.py',
    '../_base_/datasets/coco_mini.py',
    '../_base_/schedules/adamw_800.py',
    '../_base_/default_runtime.py',
]
val_cfg = None
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=200))
log_processor = dict(by_epoch=False)
