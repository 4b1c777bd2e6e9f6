# Faster R-CNN on COCO as mmdet trains it: ResNet-50, 12 epochs, 8 GPUs x 2 images.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/datasets/coco.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/scale_runtime.py',
]
