# Box losses of a RetinaNet on BCCD. The covariance weights the baseline's L1 loss.
data = 'BCCD'
base_config = '../bccd/retinanet_mobilenetv2_focal.py'
baseline = 'L1Loss'
seeds = [0, 1, 2, 3, 4]
loss_bbox = 'model.bbox_head.loss_bbox'
uncertainty_aware = dict(
    _delete_=True, type='UncertaintyAwareSmoothL1', beta=0.0, loss_weight=1.0)
variants = {
    'L1Loss': dict(),
    'SmoothL1Loss': {
        loss_bbox: dict(
            _delete_=True, type='SmoothL1Loss', beta=0.1111, loss_weight=1.0)
    },
    # 'diag' is the default of the hook.
    'UncertaintyAwareSmoothL1 (diag)': {
        loss_bbox: uncertainty_aware,
        'custom_hooks': [
            dict(type='CheckInvalidLossHook', interval=50),
            dict(type='KalmanCovarianceHook')
        ]
    },
    'UncertaintyAwareSmoothL1 (full)': {
        loss_bbox: uncertainty_aware,
        'custom_hooks': [
            dict(type='CheckInvalidLossHook', interval=50),
            dict(type='KalmanCovarianceHook', covariance='full')
        ]
    },
}
del loss_bbox, uncertainty_aware
class_means = dict(few=['Platelets', 'WBC'])
metrics = ['mAP', 'mAP_75', 'few', 'class_AP']
compare = ['mAP', 'mAP_75', 'few']
