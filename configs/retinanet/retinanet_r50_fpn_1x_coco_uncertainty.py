# RetinaNet with the box loss alone.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
custom_hooks = [dict(type='KalmanCovarianceHook')]
model = dict(bbox_head=dict(loss_bbox=dict(type='UncertaintyAwareSmoothL1', beta=0.0)))
