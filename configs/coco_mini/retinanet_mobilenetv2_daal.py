_base_ = './retinanet_mobilenetv2_focal.py'
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
