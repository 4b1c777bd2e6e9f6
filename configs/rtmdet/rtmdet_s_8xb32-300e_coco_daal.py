# RTMDet-s with DAALLoss on its quality targets.
_base_ = 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
