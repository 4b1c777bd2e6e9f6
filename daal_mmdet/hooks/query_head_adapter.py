"""Slots of heads that predict boxes from queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from daal_mmdet.hooks.covariance_tracker import CovarianceTracker
from daal_mmdet.hooks.head_adapter import Call, HeadAdapter, Places

__all__ = ['DETRHeadAdapter', 'SparseRoIHeadAdapter']


class DETRHeadAdapter(HeadAdapter):
    """DETR and its kin: a slot is a decoder layer and a query.

    The layers come in the same order in every iteration, with the proposals of a
    two-stage encoder behind them. Denoising queries change their meaning with the boxes
    of each batch: they have no slot, weigh the same, and are not measured.
    """

    method = 'get_targets'
    relies_on = ('loss_by_feat_single', 'get_targets')
    extra_calls = True

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        super().__init__(head, trackers, model)
        self._layer = 0

    def iteration_done(self) -> None:
        """Begin with the first layer again."""
        self._layer = 0

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Announce the layer's call from its labels."""
        labels = torch.cat(result[0])
        rows = _foreground(labels, self.head.num_classes)
        queries = len(result[0][0])
        place = _query_places(self._layer, rows, queries)
        self._layer += 1
        self.announce([Call(len(labels), rows, [place])])


class SparseRoIHeadAdapter(HeadAdapter):
    """A stage of Sparse R-CNN: a slot is a query."""

    method = 'get_targets'
    relies_on = ('loss_and_target', 'get_targets')

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Announce the stage's call from its labels."""
        labels = result[0]
        rows = _foreground(labels, self.head.num_classes)
        queries = len(labels) // len(arguments['sampling_results'])
        place = _query_places(0, rows, queries)
        self.announce([Call(len(rows), None, [place])], skip_empty=True)


def _foreground(labels: Tensor, num_classes: int) -> Tensor:
    return ((labels >= 0) & (labels < num_classes)).nonzero().squeeze(1)


def _query_places(level: int, rows: Tensor, queries: int) -> Places:
    return Places(level, 1, (1, queries), rows * 0, rows * 0, rows % queries)
