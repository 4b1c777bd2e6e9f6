# Classification losses of a Faster R-CNN on generated scenes.
_base_ = './_base_/two_stage_losses.py'
data = 'generated scenes, Faster R-CNN'
base_config = '../long_tail/faster_rcnn_mobilenetv2_ce.py'
metrics = ['mAP', 'mAP_50', 'mAP_75', 'mAP_few', 'mAP_medium', 'mAP_many']
compare = ['mAP', 'mAP_few']
variants = {
    'SeesawLoss': {'model.roi_head.bbox_head.loss_cls': dict(num_classes=12)},
    'EQLV2Loss': {'model.roi_head.bbox_head.loss_cls': dict(num_classes=12)},
}
