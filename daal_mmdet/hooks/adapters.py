"""Which adapter fits which head of mmdet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch.nn as nn
from mmdet.models.dense_heads import (
    AnchorHead,
    ATSSHead,
    AutoAssignHead,
    CenterNetUpdateHead,
    CondInstBboxHead,
    DDODHead,
    DDQDETRHead,
    DETRHead,
    FCOSHead,
    FoveaHead,
    FreeAnchorRetinaHead,
    FSAFHead,
    GARPNHead,
    GFLHead,
    GuidedAnchorHead,
    LADHead,
    LDHead,
    PAAHead,
    PISARetinaHead,
    RPNHead,
    RTMDetHead,
    RTMDetInsHead,
    StageCascadeRPNHead,
    TOODHead,
    VFNetHead,
    YOLACTHead,
    YOLOFHead,
    YOLOXHead,
)
from mmdet.models.roi_heads.bbox_heads import BBoxHead, DIIHead, MultiInstanceBBoxHead

from daal_mmdet.hooks.covariance_tracker import CovarianceTracker
from daal_mmdet.hooks.dense_head_adapter import (
    DenseHeadAdapter,
    LADAdapter,
    PAAAdapter,
    PISARetinaAdapter,
    YOLACTAdapter,
    YOLOXAdapter,
)
from daal_mmdet.hooks.head_adapter import HeadAdapter
from daal_mmdet.hooks.query_head_adapter import (
    DDQHeadAdapter,
    DETRHeadAdapter,
    SparseRoIHeadAdapter,
)
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
    RTMDetInsHead: _LEVELS_WITH_POSITIVES,
    DDODHead: partial(_LEVELS_WITH_POSITIVES, method='get_reg_targets'),
    FCOSHead: _AT_ONCE,
    CondInstBboxHead: _AT_ONCE,
    FoveaHead: _AT_ONCE,
    VFNetHead: _AT_ONCE,
    PISARetinaHead: partial(PISARetinaAdapter),
    YOLACTHead: partial(YOLACTAdapter),
    YOLOXHead: partial(YOLOXAdapter),
    PAAHead: partial(PAAAdapter),
    LADHead: partial(LADAdapter),
    BBoxHead: partial(RoIHeadAdapter),
    DIIHead: partial(SparseRoIHeadAdapter),
    DETRHead: partial(DETRHeadAdapter),
    DDQDETRHead: partial(DDQHeadAdapter),
}

# Why a head of mmdet has none.
_NO_ADAPTER: dict[type[nn.Module], str] = {
    AutoAssignHead: 'all points of a box are its positives, more or less',
    CenterNetUpdateHead: 'it also calls that loss to choose its positives',
    FreeAnchorRetinaHead: 'an anchor belongs to the bags of several boxes',
    MultiInstanceBBoxHead: (
        'an RoI has two predictions and is trained on the better of two pairings'
    ),
    YOLOFHead: 'its assigner returns boxes without their anchors',
}


def adapter_for(head: nn.Module, name: str, losses: Iterable[str] = ()) -> Adapter:
    """Find the adapter of a head.

    A class that inherits from one of mmdet's heads has that head's adapter unless it
    changes a method that the adapter relies on.

    Args:
        head: The module that owns the losses.
        name: Where it stands in the model, for the message.
        losses: Names of the losses in the head.

    Raises:
        ValueError: If there is none, or if it does not serve one of the losses.
    """
    for number, cls in enumerate(type(head).__mro__):
        adapter = _ADAPTERS.get(cls)
        if adapter is None:
            if cls in _NO_ADAPTER:
                break
            continue
        changed = [
            method
            for method in adapter.func.relies_on
            if any(method in vars(sub) for sub in type(head).__mro__[:number])
        ]
        if changed:
            break
        served = [loss for loss in adapter.func.serves if hasattr(head, loss)]
        for loss in losses:
            if loss not in served:
                raise ValueError(
                    f'{name}.{loss}: of {type(head).__name__} KalmanCovarianceHook '
                    f'serves {" and ".join(served)}; use a plain loss as {loss}'
                )
        return adapter
    reason = next(
        (f': {_NO_ADAPTER[cls]}' for cls in type(head).__mro__ if cls in _NO_ADAPTER),
        '',
    )
    known = ', '.join(sorted(cls.__name__ for cls in _ADAPTERS))
    raise ValueError(
        f'{name}: KalmanCovarianceHook cannot tell which rows of the box loss of '
        f'{type(head).__name__} belong to which anchor{reason}. Use a plain box loss '
        f'there; heads that work are {known}, and those that inherit their losses and '
        'targets'
    )
