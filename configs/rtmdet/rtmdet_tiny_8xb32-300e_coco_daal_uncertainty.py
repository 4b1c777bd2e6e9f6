# RTMDet-tiny with both losses.
_base_ = './rtmdet_tiny_8xb32-300e_coco_daal.py'
custom_hooks = [*_base_.custom_hooks, dict(type='KalmanCovarianceHook')]
model = dict(
    bbox_head=dict(
        loss_bbox=dict(
            _delete_=True,
            type='UncertaintyAwareLoss',
            loss=dict(type='GIoULoss', loss_weight=2.0))))
