# ATSS with both losses.
_base_ = './atss_r50_fpn_1x_coco_daal.py'
custom_hooks = [dict(type='KalmanCovarianceHook')]
model = dict(
    bbox_head=dict(
        loss_bbox=dict(
            _delete_=True,
            type='UncertaintyAwareLoss',
            loss=dict(type='GIoULoss', loss_weight=2.0))))
