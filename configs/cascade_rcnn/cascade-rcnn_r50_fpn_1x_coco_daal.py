# Cascade R-CNN with DAALLoss in every stage.
_base_ = 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
# The stages are a list, which is replaced whole.
model = dict(
    roi_head=dict(
        bbox_head=[
            dict(stage, loss_cls=dict(stage.loss_cls, type='DAALLoss'))
            for stage in _base_.model.roi_head.bbox_head
        ]))
