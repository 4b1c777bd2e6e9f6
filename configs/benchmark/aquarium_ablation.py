# The parts of DAALLoss on Aquarium.
_base_ = './_base_/daal_ablation.py'
data = 'Aquarium'
base_config = '../aquarium/retinanet_mobilenetv2_focal.py'
class_means = dict(few=['starfish', 'stingray', 'puffin', 'shark'])
metrics = ['mAP', 'mAP_50', 'mAP_75', 'few', 'class_AP']
compare = ['mAP', 'few']
