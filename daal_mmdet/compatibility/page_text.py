"""What stands above the table of detectors."""

__all__ = ['TEXT']

TEXT = """\
`loss_cls=dict(type='DAALLoss')` goes wherever a config of mmdet has a `loss_cls`;
`UncertaintyAwareSmoothL1` and `UncertaintyAwareLoss` go where it has a `loss_bbox`. This page is made by
`tools/check_compatibility.py`, which puts them into the configs that the installed mmdet ships and trains each model
for three iterations on random images: with boxes, without any, and with boxes in a late epoch. A model *works* if
every loss is finite, the logits and the head get a gradient that is not zero, and the filters of every `DAALLoss` that
was trained have moved. Weights are not loaded, ResNets are of depth 50 at most, queries and samples fewer, images small.
A tracker is checked by its detector.

## What to write

| base config | write | because |
|---|---|---|
| `FocalLoss`, `QualityFocalLoss`, `CrossEntropyLoss` | `loss_cls=dict(type='DAALLoss')` | all their keys are taken with their meaning |
| `VarifocalLoss`, `SeesawLoss`, `GHMC`, custom losses | `loss_cls=dict(_delete_=True, type='DAALLoss', use_sigmoid=...)` | they have keys of their own, and an unknown key is an error |
| `CrossEntropyLoss(use_sigmoid=True)`: RPN, YOLOX, YOLOv3 | `loss_cls=dict(type='DAALLoss', gamma=0.0, alpha=None)` | `DAALLoss` with a sigmoid is a focal loss by default; with these it keeps the cross entropy as its task term |
| `L1Loss` | `loss_bbox=dict(type='UncertaintyAwareSmoothL1', beta=0.0)` | and `KalmanCovarianceHook` in `custom_hooks` |
| `SmoothL1Loss` | `loss_bbox=dict(type='UncertaintyAwareSmoothL1')` | the same |
| IoU losses, `BalancedL1Loss` | `loss_bbox=dict(_delete_=True, type='UncertaintyAwareLoss', loss=dict(type='GIoULoss'))` | with the base's own loss as `loss` |

An RPN has one class and nothing to balance: `DAALLoss` works there and is its task term.

## Modes

- **sigmoid**: C columns, hard labels, one-hot or (**soft targets**) scores in [0, 1]. A box head of a two-stage model is
  told by the loss to have no column for the background if `use_sigmoid=True`.
- **softmax**: C + 1 columns, background last.
- **quality-focal**: the pair (labels, scores) of GFL, TOOD and RTMDet. The scores are the target of the positive term;
  class weights and shares go by the labels.
- **query**: DETR and its kin, Sparse R-CNN, Mask2Former. Their loss sees the same objects in each layer of the decoder,
  so that summing up the layers would count one object many times and make the shares look surer than they are.
  - The call of the *first layer* counts: each object is matched once there, as in every other layer.
  - Every layer is weighed by class and carries the BNM term (its mean over the layers).
  - Proposals of the encoder and denoising queries, whose groups repeat the objects, are weighed by class only. In a
    two-stage Deformable DETR the encoder's proposals have no class (mmdet gives all of them label 0) and get the task
    term alone.
  - The task loss that the proportion follows is that of all calls, since all of them are minimised.
- `reduction='none'` in a config (YOLACT, CrowdDet) means that the head mines hard negatives itself. Class weights work
  and learn; the BNM term, which belongs to no row, is left out.

## What is refused, and when

When the model is built, with the name of the head: heat maps (CenterNet, CornerNet), heads that compute their
classification loss themselves and would ignore it (FreeAnchor, AutoAssign, SSD), heads that score the tokens of a text
(GLIP, Grounding DINO), identities (re-identification), losses that are not about classes (`loss_obj`, `loss_centerness`,
`loss_mask`...), a `num_classes` or `use_sigmoid` that disagrees with the head. On the first call: logits with another
number of columns than the head's classes ask for.

Box losses need to know which anchor, RoI or query a row belongs to. `KalmanCovarianceHook` says before training which
head it can't tell that of; such a head keeps its own box loss (column *box loss*).

## Several losses in one model

Each has a state of its own. Their scalars are `train/daal_...` where there is one, and carry its place where there are
several: `train/daal_rpn_head_...`, `train/daal_roi_head.bbox_head.0_...`; `log_prefix` gives another name.
"""
