_base_ = './atss_r50_2x_focal.py'
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
