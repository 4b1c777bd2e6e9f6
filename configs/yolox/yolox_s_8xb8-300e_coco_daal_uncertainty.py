# YOLOX-s with both losses.
_base_ = './yolox_s_8xb8-300e_coco_daal.py'
custom_hooks = [*_base_.custom_hooks, dict(type='KalmanCovarianceHook')]
model = dict(
    bbox_head=dict(
        loss_bbox=dict(
            _delete_=True,
            type='UncertaintyAwareLoss',
            loss=dict(
                type='IoULoss',
                mode='square',
                eps=1e-16,
                reduction='sum',
                loss_weight=5.0))))
