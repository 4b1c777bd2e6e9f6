# Classification losses on generated scenes.
_base_ = './_base_/one_stage_losses.py'
data = 'generated scenes'
base_config = '../long_tail/retinanet_mobilenetv2_focal.py'
metrics = ['mAP', 'mAP_50', 'mAP_75', 'mAP_few', 'mAP_medium', 'mAP_many']
compare = ['mAP', 'mAP_few']
variants = {
    'ClassBalancedFocalLoss': {
        'model.bbox_head.loss_cls': dict(
            train_ann_file='data/long_tail/annotations/train.json',
            classes=[
                'disc', 'square', 'triangle', 'star', 'ring', 'cross', 'crescent',
                'arrow', 'hexagon', 'frame', 'spark', 'half_disc'
            ])
    },
    'EqualizedFocalLoss': {'model.bbox_head.loss_cls': dict(num_classes=12)},
}
