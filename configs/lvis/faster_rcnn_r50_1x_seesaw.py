# Seesaw loss (Wang et al., 2021) with the normalized classifier mmdet pairs it with.
_base_ = './faster_rcnn_r50_1x_ce.py'
model = dict(
    roi_head=dict(
        bbox_head=dict(
            cls_predictor_cfg=dict(type='NormedLinear', temperature=20),
            loss_cls=dict(
                _delete_=True, type='SeesawLoss', p=0.8, q=2.0, num_classes=1203))))
