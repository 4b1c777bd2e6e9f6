# The box loss alone.
_base_ = './retinanet_mobilenetv2_focal.py'
custom_hooks = [
    dict(type='CheckInvalidLossHook', interval=50),
    dict(type='KalmanCovarianceHook')
]
model = dict(bbox_head=dict(loss_bbox=dict(type='UncertaintyAwareSmoothL1', beta=0.0)))
