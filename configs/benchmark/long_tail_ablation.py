# The parts of DAALLoss on generated scenes.
_base_ = './_base_/daal_ablation.py'
data = 'generated scenes'
base_config = '../long_tail/retinanet_mobilenetv2_focal.py'
metrics = ['mAP', 'mAP_50', 'mAP_75', 'mAP_few', 'mAP_medium', 'mAP_many']
compare = ['mAP', 'mAP_few']
