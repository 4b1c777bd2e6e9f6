# Classification losses of a Faster R-CNN on BCCD.
_base_ = './_base_/two_stage_losses.py'
data = 'BCCD, Faster R-CNN'
base_config = '../bccd/faster_rcnn_mobilenetv2_ce.py'
class_means = dict(few=['Platelets', 'WBC'])
metrics = ['mAP', 'mAP_50', 'mAP_75', 'few', 'class_AP']
compare = ['mAP', 'few']
variants = {
    'SeesawLoss': {'model.roi_head.bbox_head.loss_cls': dict(num_classes=3)},
    'EQLV2Loss': {'model.roi_head.bbox_head.loss_cls': dict(num_classes=3)},
}
