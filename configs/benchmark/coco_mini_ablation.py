# The parts of DAALLoss on COCO-mini.
_base_ = './_base_/daal_ablation.py'
data = 'COCO-mini'
base_config = '../coco_mini/retinanet_mobilenetv2_focal.py'
metrics = ['mAP', 'mAP_50', 'mAP_75', 'mAP_few', 'mAP_medium', 'mAP_many']
compare = ['mAP', 'mAP_few']
