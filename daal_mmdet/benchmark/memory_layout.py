"""Which models may hold their weights with the channels last."""

from __future__ import annotations

import sys

import torch
from mmcv import ops
from torch import nn

__all__ = ['lay_out_for_cpu']

# Those of mmcv's compiled ops that get rows (boxes, logits) and not maps.
_ON_ROWS = (
    'batched_nms',
    'bbox_overlaps',
    'nms',
    'nms_match',
    'nms_quadri',
    'nms_rotated',
    'sigmoid_focal_loss',
    'soft_nms',
    'softmax_focal_loss',
)


def lay_out_for_cpu(model: nn.Module) -> None:
    """Lay a model's weights out with the channels last, where that is safe, in place.

    Depthwise convolutions are faster so. mmcv's compiled ops on maps expect contiguous
    ones, though: deformable convolutions refuse others, and ``RoIAlign`` reads them as
    if they were, and gives wrong features without a word. So a model that holds such an
    op, or has a layer from a file that imports one, stays as it is.
    """
    if not _has_ops_on_maps(model):
        model.to(memory_format=torch.channels_last)


def _has_ops_on_maps(model: nn.Module) -> bool:
    on_maps = {id(getattr(ops, name)) for name in ops.__all__ if name not in _ON_ROWS}
    files = {
        base.__module__ for module in model.modules() for base in type(module).__mro__
    }
    imported = (vars(sys.modules[file]).values() for file in files)
    return any(id(value) in on_maps for values in imported for value in values)
