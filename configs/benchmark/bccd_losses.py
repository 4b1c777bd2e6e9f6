# Classification losses on BCCD.
_base_ = './_base_/one_stage_losses.py'
data = 'BCCD'
base_config = '../bccd/retinanet_mobilenetv2_focal.py'
class_means = dict(few=['Platelets', 'WBC'])
metrics = ['mAP', 'mAP_50', 'mAP_75', 'few', 'class_AP']
compare = ['mAP', 'few']
variants = {
    'ClassBalancedFocalLoss': {
        'model.bbox_head.loss_cls': dict(
            train_ann_file='data/bccd/annotations/train.json',
            classes=['RBC', 'WBC', 'Platelets'])
    },
    'EqualizedFocalLoss': {'model.bbox_head.loss_cls': dict(num_classes=3)},
}
