# Faster R-CNN with the box loss alone, in both stages.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
custom_hooks = [dict(type='KalmanCovarianceHook')]
loss_bbox = dict(type='UncertaintyAwareSmoothL1', beta=0.0)
model = dict(
    rpn_head=dict(loss_bbox=loss_bbox),
    roi_head=dict(bbox_head=dict(loss_bbox=loss_bbox)))
