# Cascade R-CNN with both losses.
_base_ = './cascade-rcnn_r50_fpn_1x_coco_daal.py'
custom_hooks = [dict(type='KalmanCovarianceHook')]
model = dict(
    rpn_head=dict(loss_bbox=dict(type='UncertaintyAwareSmoothL1')),
    roi_head=dict(
        bbox_head=[
            dict(
                stage,
                loss_bbox=dict(stage.loss_bbox, type='UncertaintyAwareSmoothL1'))
            for stage in _base_.model.roi_head.bbox_head
        ]))
