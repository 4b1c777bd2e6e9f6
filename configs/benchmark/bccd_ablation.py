# The parts of DAALLoss on BCCD.
_base_ = './_base_/daal_ablation.py'
data = 'BCCD'
base_config = '../bccd/retinanet_mobilenetv2_focal.py'
class_means = dict(few=['Platelets', 'WBC'])
metrics = ['mAP', 'mAP_50', 'mAP_75', 'few', 'class_AP']
compare = ['mAP', 'few']
