_base_ = './retinanet_mobilenetv2_4e_focal.py'
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
