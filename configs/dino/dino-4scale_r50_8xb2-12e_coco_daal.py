# DINO with DAALLoss; objects are counted once, denoising queries not at all.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
