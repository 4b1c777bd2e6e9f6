"""Slots of heads that predict a box at every cell of every level."""

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

__all__ = [
    'DenseHeadAdapter',
    'LADAdapter',
    'PAAAdapter',
    'PISARetinaAdapter',
    'YOLACTAdapter',
    'YOLOXAdapter',
]

# The loss is called with all rows, and the target method returns the box weights.
_WITH_ALL_ROWS = ('each level', 'each image', 'all images at once')


class _MapsAdapter(HeadAdapter):
    """Base for heads whose rows are the cells of feature maps."""

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        super().__init__(head, trackers, model)
        self._grids: list[tuple[int, int]] = []
        self._images = 0

    def outputs(self, outputs: Any) -> None:
        """Learn the sizes of the feature maps and the number of images."""
        # Cascade RPN's first stage has no scores.
        maps = next(maps for maps in outputs if maps[0] is not None)
        self._grids = [tuple(level.shape[-2:]) for level in maps]
        self._images = len(maps[0])

    def _positives(
        self, level: int, positive: Tensor, images: int
    ) -> tuple[Tensor, Places]:
        """Positives among the rows (image, row, column, anchor) of a level."""
        rows = positive.nonzero().squeeze(1)
        height, width = self._grids[level]
        templates = len(positive) // (images * height * width)
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

    def _positives_of_image(
        self, levels: Sequence[Tensor]
    ) -> tuple[Tensor, list[Places]]:
        """Positives of an image whose rows are those of one level after the other."""
        rows, places, first = [], [], 0
        for level, positive in enumerate(levels):
            found, place = self._positives(level, positive, 1)
            rows.append(found + first)
            places.append(place)
            first += len(positive)
        return torch.cat(rows), places

    def _split_levels(self, rows: Tensor, images: int) -> Sequence[Tensor]:
        """Split the rows of all levels, which have equally many anchors a cell."""
        cells = [images * height * width for height, width in self._grids]
        templates = len(rows) // sum(cells)
        return rows.split([templates * number for number in cells])


class DenseHeadAdapter(_MapsAdapter):
    """Anchor and point heads: a slot is a level, an anchor of the cell, and the cell.

    mmdet's heads compute the targets of all levels first, level by level, for the rows
    (image, row, column, anchor). Where a loss is called with all rows, the positives
    are those whose box weight is not 0, and else those with the label of a class.

    Args:
        head: The head; its forward returns a list of maps (B, channels, H, W) first.
        trackers: Trackers of its losses.
        model: The whole detector.
        marks_at: Where in what the method returns the box weights (calls with all rows)
            or else the labels are.
        calls: Which calls of the losses follow. With all rows: one for 'each level',
            one for 'each image' or one for 'all images at once', where the rows of an
            image are those of one level after the other. With the positives: one for
            each of the 'levels with positives', or one for 'all levels at once' if
            there are any.
        method: Method that computes the targets.
    """

    relies_on = ('loss_by_feat', 'loss_by_feat_single', 'get_targets')
    # The second is VFNet's.
    serves = ('loss_bbox', 'loss_bbox_refine')

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

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Announce the calls from the targets."""
        marks = result[self.marks_at]
        if isinstance(marks, Tensor):
            # FoveaHead has put the levels together.
            marks = self._split_levels(marks, self._images)
        levels = [self._is_positive(part) for part in marks]
        if self.calls in ('each image', 'all images at once'):
            self._announce_images(levels)
            return
        found = [
            self._positives(level, positive, self._images)
            for level, positive in enumerate(levels)
        ]
        places = [place for _, place in found]
        if self.calls == 'each level':
            self.announce(
                [
                    Call(len(positive), rows, [place])
                    for positive, (rows, place) in zip(levels, found, strict=True)
                ]
            )
            return
        calls = [Call(len(rows), None, [place]) for rows, place in found]
        if self.calls == 'all levels at once':
            calls = [Call(sum(call.num_rows for call in calls), None, places)]
        self.announce(calls, skip_empty=True)

    def _is_positive(self, marks: Tensor) -> Tensor:
        if self.calls in _WITH_ALL_ROWS:
            return marks.reshape(-1, marks.shape[-1]).amax(dim=1) > 0
        return is_foreground(marks.reshape(-1), self.head.num_classes)

    def _announce_images(self, levels: Sequence[Tensor]) -> None:
        calls = []
        by_level = [positive.view(self._images, -1) for positive in levels]
        for parts in zip(*by_level, strict=True):
            rows, places = self._positives_of_image(parts)
            calls.append(Call(sum(len(part) for part in parts), rows, places))
        if self.calls == 'all images at once':
            size = calls[0].num_rows
            rows = torch.cat([call.rows + i * size for i, call in enumerate(calls)])
            places = [place for call in calls for place in call.places]
            calls = [Call(size * len(calls), rows, places)]
        self.announce(calls, skip_empty=True)


class PISARetinaAdapter(DenseHeadAdapter):
    """PISA's RetinaNet: one call, and a second term of the same residuals."""

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        super().__init__(head, trackers, model, marks_at=3, calls='all images at once')

    def announce(self, calls: Sequence[Call], skip_empty: bool = False) -> None:
        """Announce the term that weighs the positives by their scores, too."""
        if self.head.train_cfg.get('carl') is not None:
            (call,) = calls
            again = Call(len(call.rows), None, call.places, measured=False)
            calls = [call, again]
        super().announce(calls, skip_empty)


class YOLACTAdapter(DenseHeadAdapter):
    """YOLACT: image by image where it mines hard negatives, else level by level."""

    relies_on = (*DenseHeadAdapter.relies_on, 'OHEMloss_by_feat_single')

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        calls = 'each image' if head.use_ohem else 'each level'
        super().__init__(head, trackers, model, marks_at=3, calls=calls)


class _ImageByImageAdapter(_MapsAdapter):
    """Base for one call with the positives of all images, found image by image."""

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        super().__init__(head, trackers, model)
        self._masks: list[Tensor] = []

    def outputs(self, outputs: Any) -> None:
        """Learn the sizes of the feature maps and the number of images."""
        super().outputs(outputs)
        self._masks = []

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Announce the call when the last image has its targets."""
        self._masks.append(self._positives_in(result))
        if len(self._masks) == self._images:
            self._announce_images(self._masks)

    def _positives_in(self, result: Any) -> Tensor:
        """Positives among the rows of an image, (N,), bool."""
        raise NotImplementedError

    def _announce_images(self, masks: Sequence[Tensor]) -> None:
        places = []
        for mask in masks:
            places += self._positives_of_image(self._split_levels(mask, 1))[1]
        number = sum(len(place.y) for place in places)
        self.announce([Call(number, None, places)], skip_empty=True)


class YOLOXAdapter(_ImageByImageAdapter):
    """YOLOX: targets are the positives of an image."""

    method = '_get_targets_single'
    relies_on = ('loss_by_feat', '_get_targets_single')
    serves = ('loss_bbox', 'loss_l1')

    def _positives_in(self, result: Any) -> Tensor:
        return result[0]

    def active_trackers(self) -> Sequence[CovarianceTracker]:
        """All but the L1 term's, which joins in the last epochs."""
        if self.head.use_l1:
            return self.trackers
        return [t for t in self.trackers if t.loss is not self.head.loss_l1]


class PAAAdapter(_ImageByImageAdapter):
    """PAA: the candidates whose own loss is low are the positives.

    To choose them the head calls its losses on all candidates, and takes no gradient of
    that. These rows have no slot, so that the choice is as with a plain loss.
    """

    method = 'paa_reassign'
    relies_on = ('loss_by_feat', 'get_pos_loss', 'paa_reassign')
    extra_calls = True

    def _positives_in(self, result: Any) -> Tensor:
        return is_foreground(result[0], self.head.num_classes)


class LADAdapter(PAAAdapter):
    """LAD: a PAA head whose positives its teacher has chosen."""

    method = 'loss_by_feat'
    relies_on = ('loss', 'loss_by_feat', 'get_pos_loss')

    def before(self, arguments: Mapping[str, Any]) -> None:
        """Announce the call from the teacher's labels, (images * N,)."""
        labels = arguments['label_assignment_results'][0]
        positive = is_foreground(labels, self.head.num_classes)
        self._announce_images(positive.chunk(self._images))

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Nothing is left to announce."""
