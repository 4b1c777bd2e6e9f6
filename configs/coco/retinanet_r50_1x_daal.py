_base_ = './retinanet_r50_1x_focal.py'
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
