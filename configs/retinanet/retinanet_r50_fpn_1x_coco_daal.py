# RetinaNet with DAALLoss.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
