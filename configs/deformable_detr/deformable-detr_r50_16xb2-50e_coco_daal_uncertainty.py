# Deformable DETR with both losses.
_base_ = './deformable-detr_r50_16xb2-50e_coco_daal.py'
custom_hooks = [dict(type='KalmanCovarianceHook')]
model = dict(bbox_head=dict(loss_bbox=dict(type='UncertaintyAwareSmoothL1', beta=0.0)))
