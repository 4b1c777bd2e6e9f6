# Classification losses on Aquarium.
_base_ = './_base_/one_stage_losses.py'
data = 'Aquarium'
base_config = '../aquarium/retinanet_mobilenetv2_focal.py'
class_means = dict(few=['starfish', 'stingray', 'puffin', 'shark'])
metrics = ['mAP', 'mAP_50', 'mAP_75', 'few', 'class_AP']
compare = ['mAP', 'few']
variants = {
    'ClassBalancedFocalLoss': {
        'model.bbox_head.loss_cls': dict(
            train_ann_file='data/aquarium/annotations/train.json',
            classes=[
                'fish', 'jellyfish', 'penguin', 'puffin', 'shark', 'starfish',
                'stingray'
            ])
    },
    'EqualizedFocalLoss': {'model.bbox_head.loss_cls': dict(num_classes=7)},
}
