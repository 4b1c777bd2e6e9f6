# Faster R-CNN with both losses.
_base_ = './faster-rcnn_r50_fpn_1x_coco_uncertainty.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(type='DAALLoss'))))
