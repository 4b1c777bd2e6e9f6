# FCOS with both losses.
_base_ = './fcos_r50-caffe_fpn_gn-head_1x_coco_daal.py'
custom_hooks = [dict(type='KalmanCovarianceHook')]
model = dict(
    bbox_head=dict(
        loss_bbox=dict(
            _delete_=True,
            type='UncertaintyAwareLoss',
            loss=dict(type='IoULoss', loss_weight=1.0))))
