# DINO with both losses.
_base_ = './dino-4scale_r50_8xb2-12e_coco_daal.py'
custom_hooks = [dict(type='KalmanCovarianceHook')]
model = dict(bbox_head=dict(loss_bbox=dict(type='UncertaintyAwareSmoothL1', beta=0.0)))
