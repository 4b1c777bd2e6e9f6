# A small RetinaNet on mini LVIS: shows that every step works, not how well.
_base_ = [
    '../_base_/models/retinanet_mobilenetv2.py',
    '../_base_/datasets/lvis_mini.py',
    '../_base_/schedules/adamw_16e.py',
    '../_base_/scale_runtime.py',
]
train_cfg = dict(max_epochs=4)
