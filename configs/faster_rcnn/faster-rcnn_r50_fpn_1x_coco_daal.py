# Faster R-CNN with DAALLoss in its box head. The RPN has one class, none to balance.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(type='DAALLoss'))))
