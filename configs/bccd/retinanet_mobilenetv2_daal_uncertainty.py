# Both losses.
_base_ = './retinanet_mobilenetv2_uncertainty.py'
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
