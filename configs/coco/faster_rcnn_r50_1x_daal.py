_base_ = './faster_rcnn_r50_1x_ce.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(type='DAALLoss'))))
