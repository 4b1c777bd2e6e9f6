_base_ = './mask_rcnn_r50_2x_ce.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(type='DAALLoss'))))
