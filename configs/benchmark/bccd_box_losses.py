# Box losses on BCCD: RetinaNet, MobileNetV2-0.5 from scratch, 16 epochs.
data = 'BCCD'
base_config = '../bccd/retinanet_mobilenetv2_focal.py'
baseline = 'L1Loss'
seeds = [0, 1, 2, 3, 4]
variants = {
    'L1Loss': dict(),
    'SmoothL1Loss': {
        'model.bbox_head.loss_bbox': dict(
            _delete_=True, type='SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0)
    },
}
class_means = dict(few=['Platelets', 'WBC'])
metrics = ['mAP', 'mAP_75', 'few', 'class_AP']
compare = ['mAP', 'mAP_75', 'few']
