"""Slots of the box heads of two-stage detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from mmdet.models.roi_heads import PISARoIHead
from torch import Tensor

from daal_mmdet.hooks.covariance_tracker import CovarianceTracker
from daal_mmdet.hooks.head_adapter import (
    Call,
    HeadAdapter,
    Places,
    is_foreground,
)

__all__ = ['RoIHeadAdapter']


class RoIHeadAdapter(HeadAdapter):
    """A slot is the FPN level that an RoI is pooled from, and its class.

    Args:
        head: A ``BBoxHead``.
        trackers: Trackers of its loss.
        model: The whole detector, which holds the head's RoI extractor.
    """

    method = 'loss'
    relies_on = ('loss', 'loss_and_target')

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        super().__init__(head, trackers, model)
        roi_head, self._extractor = _find_owner(head, model)
        # PISA's second term weighs the same residuals by their scores.
        self._twice = (
            isinstance(roi_head, PISARoIHead)
            and roi_head.train_cfg.get('carl') is not None
        )

    def before(self, arguments: Mapping[str, Any]) -> None:
        """Announce the call from the labels of the RoIs."""
        if arguments['bbox_pred'] is None:
            return
        labels, rois = arguments['labels'], arguments['rois']
        classes = self.head.num_classes
        rows = is_foreground(labels, classes).nonzero().squeeze(1)
        labels, levels = labels[rows], self._levels(rois[rows])
        members = [(levels == i).nonzero().squeeze(1) for i in range(self._num_levels)]
        places = [
            Places(level, classes, (1, 1), labels[member], member * 0, member * 0)
            for level, member in enumerate(members)
        ]
        calls = [Call(len(rows), None, places, order=torch.cat(members))]
        if self._twice:
            calls.append(calls[0]._replace(measured=False))
        self.announce(calls, skip_empty=True)

    @property
    def _num_levels(self) -> int:
        return 1 if self._extractor is None else len(self._extractor.featmap_strides)

    def _levels(self, rois: Tensor) -> Tensor:
        if self._extractor is None:
            return torch.zeros(len(rois), dtype=torch.int64, device=rois.device)
        return self._extractor.map_roi_levels(rois, self._num_levels)


def _find_owner(
    head: nn.Module, model: nn.Module
) -> tuple[nn.Module | None, nn.Module | None]:
    """The RoI head of a box head, and what assigns each of its RoIs to one level.

    The extractor is None if it pools from all levels.
    """
    for module in model.modules():
        heads = getattr(module, 'bbox_head', None)
        extractor = getattr(module, 'bbox_roi_extractor', None)
        if heads is None or extractor is None:
            continue
        pairs = [(heads, extractor)]
        if isinstance(heads, nn.ModuleList):
            pairs = list(zip(heads, extractor, strict=True))
        for own, of in pairs:
            # torch.compile puts the head into another module.
            if getattr(own, '_orig_mod', own) is head:
                return module, of if hasattr(of, 'map_roi_levels') else None
    return None, None
