# Both losses.
_base_ = './faster_rcnn_mobilenetv2_uncertainty.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(type='DAALLoss'))))
