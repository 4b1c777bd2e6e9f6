# Mask R-CNN with both losses.
_base_ = './mask-rcnn_r50_fpn_1x_coco_daal.py'
custom_hooks = [dict(type='KalmanCovarianceHook')]
loss_bbox = dict(type='UncertaintyAwareSmoothL1', beta=0.0)
model = dict(
    rpn_head=dict(loss_bbox=loss_bbox),
    roi_head=dict(bbox_head=dict(loss_bbox=loss_bbox)))
