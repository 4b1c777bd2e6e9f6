# FCOS with DAALLoss.
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
