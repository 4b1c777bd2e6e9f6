# RetinaNet with both losses.
_base_ = './retinanet_r50_fpn_1x_coco_uncertainty.py'
model = dict(bbox_head=dict(loss_cls=dict(type='DAALLoss')))
