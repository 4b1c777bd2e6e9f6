# The box loss alone, in both stages.
_base_ = './faster_rcnn_mobilenetv2_ce.py'
custom_hooks = [
    dict(type='CheckInvalidLossHook', interval=50),
    dict(type='KalmanCovarianceHook')
]
loss_bbox = dict(type='UncertaintyAwareSmoothL1', beta=0.0)
model = dict(
    rpn_head=dict(loss_bbox=loss_bbox),
    roi_head=dict(bbox_head=dict(loss_bbox=loss_bbox)))
