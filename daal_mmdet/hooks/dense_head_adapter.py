"""Slots of heads that predict a box at every cell of every level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn as nn
from torch import Tensor

from daal_mmdet.hooks.covariance_tracker import CovarianceTracker
from daal_mmdet.hooks.head_adapter import Call, HeadAdapter, Places

__all__ = ['DenseHeadAdapter', 'YOLOXAdapter']

CALLS = ('each level', 'levels with positives', 'all levels at once')


class DenseHeadAdapter(HeadAdapter):
    """Anchor and point heads: a slot is a level, an anchor of the cell, and the cell.

    mmdet's heads compute the targets of all levels first, level by level, for the rows
    (image, row, column, anchor). Where a loss is called with all rows, the positives
    are those whose box weight is not 0, and else those with the label of a class.

    Args:
        head: The head; its forward returns a list of maps (B, channels, H, W) first.
        trackers: Trackers of its losses.
        model: The whole detector.
        marks_at: Where in what the method returns the box weights (calls for 'each
            level') or else the labels are.
        calls: Which calls of the losses follow: one for 'each level' with all its rows;
            one for each of the 'levels with positives' with these; or one for
            'all levels at once' with the positives, if there are any.
        method: Method that computes the targets.
    """

    relies_on = ('loss_by_feat', 'loss_by_feat_single', 'get_targets')

    def __init__(
        self,
        head: nn.Module,
        trackers: Sequence[CovarianceTracker],
        model: nn.Module,
        marks_at: int,
        calls: str,
        method: str = 'get_targets',
    ) -> None:
        super().__init__(head, trackers, model)
        self.marks_at = marks_at
        self.calls = calls
        self.method = method
        self._grids: list[tuple[int, int]] = []
        self._images = 0

    def outputs(self, outputs: Any) -> None:
        """Learn the sizes of the feature maps."""
        # Cascade RPN's first stage has no scores.
        maps = next(maps for maps in outputs if maps[0] is not None)
        self._grids = [tuple(level.shape[-2:]) for level in maps]
        self._images = len(maps[0])

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Announce the calls from the targets."""
        calls = []
        for level, marks in enumerate(result[self.marks_at]):
            if self.calls == 'each level':
                positive = marks.reshape(-1, marks.shape[-1]).amax(dim=1) > 0
            else:
                labels = marks.reshape(-1)
                positive = (labels >= 0) & (labels < self.head.num_classes)
            rows, places = self._positives(level, positive)
            calls.append(Call(len(positive), rows, [places]))
        if self.calls == 'each level':
            self.announce(calls)
            return
        calls = [Call(len(call.rows), None, call.places) for call in calls]
        if self.calls == 'all levels at once':
            number = sum(call.num_rows for call in calls)
            calls = [Call(number, None, [call.places[0] for call in calls])]
        self.announce(calls, skip_empty=True)

    def _positives(self, level: int, positive: Tensor) -> tuple[Tensor, Places]:
        rows = positive.nonzero().squeeze(1)
        height, width = self._grids[level]
        templates = len(positive) // (self._images * height * width)
        cell = rows % (height * width * templates) // templates
        places = Places(
            level,
            templates,
            (height, width),
            rows % templates,
            cell // width,
            cell % width,
        )
        return rows, places


class YOLOXAdapter(HeadAdapter):
    """YOLOX: one call with the positives of all images, found image by image."""

    method = '_get_targets_single'
    relies_on = ('loss_by_feat', '_get_targets_single')

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        super().__init__(head, trackers, model)
        self._grids: list[tuple[int, int]] = []
        self._images = 0
        self._masks: list[Tensor] = []

    def outputs(self, outputs: Any) -> None:
        """Learn the sizes of the feature maps and the number of images."""
        self._grids = [tuple(level.shape[-2:]) for level in outputs[0]]
        self._images = len(outputs[0][0])
        self._masks = []

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Announce the calls when the last image has its targets."""
        self._masks.append(result[0])
        if len(self._masks) < self._images:
            return
        places = []
        for mask in self._masks:
            sizes = [height * width for height, width in self._grids]
            for level, part in enumerate(mask.split(sizes)):
                cell = part.nonzero().squeeze(1)
                width = self._grids[level][1]
                places.append(
                    Places(
                        level,
                        1,
                        self._grids[level],
                        cell * 0,
                        cell // width,
                        cell % width,
                    )
                )
        number = sum(len(place.y) for place in places)
        self.announce([Call(number, None, places)], skip_empty=True)

    def active_trackers(self) -> Sequence[CovarianceTracker]:
        """All but the L1 term's, which joins in the last epochs."""
        if self.head.use_l1:
            return self.trackers
        return [t for t in self.trackers if t.loss is not self.head.loss_l1]
