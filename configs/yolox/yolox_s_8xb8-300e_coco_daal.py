# YOLOX-s with DAALLoss.
#
# The head classifies positives only: no focusing, and no share for negatives, so that
# the task term is the cross entropy of the base.
_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
model = dict(
    bbox_head=dict(loss_cls=dict(type='DAALLoss', gamma=0.0, alpha=None)))
