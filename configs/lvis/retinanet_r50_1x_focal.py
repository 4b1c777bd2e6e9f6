# RetinaNet on LVIS v1: ResNet-50, repeat-factor sampling, 12 epochs, 8 GPUs x 2.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/lvis_v1_boxes.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/scale_runtime.py',
]
model = dict(
    bbox_head=dict(num_classes=1203),
    # LVIS takes up to 300 detections an image.
    test_cfg=dict(score_thr=0.0001, max_per_img=300))
optim_wrapper = dict(optimizer=dict(lr=0.01))
# Evaluating LVIS takes long.
train_cfg = dict(val_interval=12)
