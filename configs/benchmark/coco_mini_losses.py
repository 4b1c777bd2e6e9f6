# Classification losses on COCO-mini.
_base_ = './_base_/one_stage_losses.py'
data = 'COCO-mini'
base_config = '../coco_mini/retinanet_mobilenetv2_focal.py'
metrics = ['mAP', 'mAP_50', 'mAP_75', 'mAP_few', 'mAP_medium', 'mAP_many']
compare = ['mAP', 'mAP_few']
variants = {
    'ClassBalancedFocalLoss': {
        'model.bbox_head.loss_cls': dict(
            train_ann_file='data/coco_mini/annotations/instances_train2017.json')
    },
    'EqualizedFocalLoss': {'model.bbox_head.loss_cls': dict(num_classes=80)},
}
