"""Which adapter fits which head of mmdet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn as nn
from mmdet.models.dense_heads import (
    AnchorHead,
    ATSSHead,
    DDODHead,
    DETRHead,
    FCOSHead,
    FSAFHead,
    GARPNHead,
    GFLHead,
    GuidedAnchorHead,
    LDHead,
    RPNHead,
    RTMDetHead,
    StageCascadeRPNHead,
    TOODHead,
    VFNetHead,
    YOLOXHead,
)
from mmdet.models.roi_heads.bbox_heads import BBoxHead, DIIHead

from daal_mmdet.hooks.covariance_tracker import CovarianceTracker
from daal_mmdet.hooks.dense_head_adapter import DenseHeadAdapter, YOLOXAdapter
from daal_mmdet.hooks.head_adapter import HeadAdapter
from daal_mmdet.hooks.query_head_adapter import DETRHeadAdapter, SparseRoIHeadAdapter
from daal_mmdet.hooks.roi_head_adapter import RoIHeadAdapter

__all__ = ['adapter_for']

Adapter = Callable[[nn.Module, Sequence[CovarianceTracker], nn.Module], HeadAdapter]

_EACH_LEVEL = partial(DenseHeadAdapter, marks_at=3, calls='each level')
_LEVELS_WITH_POSITIVES = partial(
    DenseHeadAdapter, marks_at=1, calls='levels with positives'
)
_AT_ONCE = partial(DenseHeadAdapter, marks_at=0, calls='all levels at once')

_ADAPTERS: dict[type[nn.Module], partial[HeadAdapter]] = {
    AnchorHead: _EACH_LEVEL,
    RPNHead: _EACH_LEVEL,
    StageCascadeRPNHead: _EACH_LEVEL,
    GuidedAnchorHead: _EACH_LEVEL,
    GARPNHead: _EACH_LEVEL,
    FSAFHead: _EACH_LEVEL,
    ATSSHead: _LEVELS_WITH_POSITIVES,
    GFLHead: _LEVELS_WITH_POSITIVES,
    LDHead: _LEVELS_WITH_POSITIVES,
    TOODHead: _LEVELS_WITH_POSITIVES,
    RTMDetHead: _LEVELS_WITH_POSITIVES,
    DDODHead: partial(_LEVELS_WITH_POSITIVES, method='get_reg_targets'),
    FCOSHead: _AT_ONCE,
    VFNetHead: _AT_ONCE,
    YOLOXHead: partial(YOLOXAdapter),
    BBoxHead: partial(RoIHeadAdapter),
    DIIHead: partial(SparseRoIHeadAdapter),
    DETRHead: partial(DETRHeadAdapter),
}


def adapter_for(head: nn.Module, name: str) -> Adapter:
    """Find the adapter of a head.

    A class that inherits from one of mmdet's heads has that head's adapter unless it
    changes a method that the adapter relies on.

    Args:
        head: The module that owns the loss.
        name: Where it stands in the model, for the message.

    Raises:
        ValueError: If there is none.
    """
    for number, cls in enumerate(type(head).__mro__):
        adapter = _ADAPTERS.get(cls)
        if adapter is None:
            continue
        changed = [
            method
            for method in adapter.func.relies_on
            if any(method in vars(sub) for sub in type(head).__mro__[:number])
        ]
        if changed:
            break
        return adapter
    known = ', '.join(sorted(cls.__name__ for cls in _ADAPTERS))
    raise ValueError(
        f'{name}: KalmanCovarianceHook cannot tell which rows of the box loss of '
        f'{type(head).__name__} belong to which anchor. Use a plain box loss there; '
        f'heads that work are {known}, and those that inherit their losses and targets'
    )
