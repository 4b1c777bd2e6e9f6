# A small Faster R-CNN on the Aquarium set.
_base_ = [
    '../_base_/models/faster_rcnn_mobilenetv2.py',
    '../_base_/datasets/aquarium.py',
    '../_base_/schedules/adamw_16e.py',
    '../_base_/default_runtime.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=7)))
