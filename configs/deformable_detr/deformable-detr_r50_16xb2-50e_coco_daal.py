# Deformable DETR with DAALLoss; the objects of a batch are counted once.
_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
