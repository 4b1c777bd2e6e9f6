"""Slots of heads that predict boxes from queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from daal_mmdet.hooks.covariance_tracker import CovarianceTracker
from daal_mmdet.hooks.head_adapter import (
    Call,
    HeadAdapter,
    Places,
    is_foreground,
)

__all__ = ['DDQHeadAdapter', 'DETRHeadAdapter', 'SparseRoIHeadAdapter']


class DETRHeadAdapter(HeadAdapter):
    """DETR and its kin: a slot is a decoder layer and a query.

    The layers come in the same order in every iteration, with the proposals of a
    two-stage encoder behind them: the best ones (DINO), which are as many as the
    queries, or those of all cells (Deformable DETR). Maps of other sizes have other
    cells in the same rows, so the latter share a slot. Denoising queries change their
    meaning with the boxes of each batch: they have no slot, weigh the same, and are not
    measured.
    """

    method = 'get_targets'
    relies_on = ('loss_by_feat_single', 'get_targets')
    serves = ('loss_bbox', 'loss_iou')
    extra_calls = True

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        super().__init__(head, trackers, model)
        self._layer = self._num_queries = 0

    def outputs(self, outputs: Any) -> None:
        """Begin with the first layer again: an iteration may have several passes."""
        self._layer = 0

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Announce the layer's call from its labels."""
        labels = torch.cat(result[0])
        rows = is_foreground(labels, self.head.num_classes).nonzero().squeeze(1)
        queries, number = self._queries(result[0])
        place = _query_places(self._layer, queries[rows], number)
        self._layer += 1
        self.announce([Call(len(labels), rows, [place])])

    def _queries(self, labels: Sequence[Tensor]) -> tuple[Tensor, int]:
        """Query of each row, and how many queries a layer has.

        Args:
            labels: Those of each image.
        """
        number = len(labels[0])
        if self._layer == 0:
            self._num_queries = number
        elif number != self._num_queries:
            return torch.zeros_like(torch.cat(list(labels))), 1
        return _all_queries(labels[0]).repeat(len(labels)), number


class DDQHeadAdapter(DETRHeadAdapter):
    """DDQ DETR: behind the first layer an image only trains its distinct queries."""

    relies_on = (*DETRHeadAdapter.relies_on, '_loss_for_distinct_queries_single')

    def _queries(self, labels: Sequence[Tensor]) -> tuple[Tensor, int]:
        cache = self.head.cache_dict
        masks = cache['distinct_query_mask']
        # The first layer and the encoder's proposals, in front and behind, have all.
        if not 0 < self._layer <= len(masks):
            return super()._queries(labels)
        # As the head selects them: (images * attention heads, queries, queries).
        kept = masks[self._layer - 1][:: cache['num_heads'], 0]
        queries = [
            mask.nonzero().squeeze(1) if len(part) < len(mask) else _all_queries(mask)
            for part, mask in zip(labels, kept, strict=True)
        ]
        return torch.cat(queries), kept.shape[1]


class SparseRoIHeadAdapter(HeadAdapter):
    """A stage of Sparse R-CNN: a slot is a query."""

    method = 'get_targets'
    relies_on = ('loss_and_target', 'get_targets')
    serves = ('loss_bbox', 'loss_iou')

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Announce the stage's call from its labels."""
        labels = result[0]
        rows = is_foreground(labels, self.head.num_classes).nonzero().squeeze(1)
        queries = len(labels) // len(arguments['sampling_results'])
        place = _query_places(0, rows % queries, queries)
        self.announce([Call(len(rows), None, [place])], skip_empty=True)


def _all_queries(like: Tensor) -> Tensor:
    return torch.arange(len(like), device=like.device)


def _query_places(level: int, queries: Tensor, number: int) -> Places:
    return Places(level, 1, (1, number), queries * 0, queries * 0, queries)
