"""Classification targets in the forms that mmdet's heads pass them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Targets', 'flatten_rows', 'parse_targets']

# Soft targets are often products of IoUs: let rounding pass.
_ROUNDING = 1e-3
_IGNORE_INDEX = -100


class Targets(NamedTuple):
    """Targets of N rows over C classes.

    Attributes:
        labels: (N,), int64 in 0..C, C for background and for ignored rows. None for
            soft targets.
        scores: (N,), quality of each row. None unless quality targets.
        soft: (N, C) or, with background, (N, C + 1). None unless soft targets.
        weight: Row weights (N,), or weights of every entry (N, C). None for ones.
        counted: (N,), bool, rows that are not ignored and have a positive weight.
        not_ignored: (N,), bool. None if no row can be ignored.
        num_classes: C.
    """

    labels: Tensor | None
    scores: Tensor | None
    soft: Tensor | None
    weight: Tensor | None
    counted: Tensor
    not_ignored: Tensor | None
    num_classes: int

    def foreground(self) -> Tensor:
        """Counted rows that hold an object, (N,), bool."""
        C = self.num_classes
        if self.labels is not None:
            return self.counted & (self.labels < C)
        assert self.soft is not None
        if self.soft.shape[1] > C:
            return self.counted & (self.soft[:, C] < 0.5)
        return self.counted & (self.soft > 0).any(dim=1)

    def of_rows(self, index: Tensor) -> Tensor:
        """Target of some rows for each class, times the row's weight, (K, C)."""
        C = self.num_classes
        if self.soft is not None:
            rows = self.soft[index, :C]
        else:
            assert self.labels is not None
            rows = torch.zeros(len(index), C + 1, device=index.device)
            rows = rows.scatter_(1, self.labels[index, None], 1.0)[:, :C]
            if self.scores is not None:
                rows = rows * self.scores[index, None]
        if self.weight is None:
            return rows
        weight = self.weight[index]
        return rows * (weight if weight.dim() > 1 else weight[:, None])

    def class_counts(self) -> Tensor:
        """Counted foreground samples of each class, (C,), soft ones in parts."""
        C = self.num_classes
        counted = self.counted.float()
        if self.labels is not None:
            # Each row of the background has a bin of its own: added up in one, all its
            # rows would wait for each other on a GPU. bincount would wait for the host.
            bins = torch.arange(C, C + len(self.labels), device=counted.device)
            bins = torch.where(self.labels < C, self.labels, bins)
            counts = counted.new_zeros(C + len(self.labels))
            return counts.scatter_add_(0, bins, counted)[:C]
        assert self.soft is not None
        # Half precision would round the sums, and end at 65504.
        with torch.autocast(device_type=counted.device.type, enabled=False):
            return counted @ self.soft[:, :C].float()


def parse_targets(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None,
    num_classes: int,
    ignore_index: int | None = None,
) -> Targets:
    """Bring a head's target and weight to one form, and check them.

    Args:
        pred: (N, C) or, with a background column, (N, C + 1).
        target: Labels (N,); or one-hot or soft targets, shaped as ``pred`` or without
            its background column; or (labels, scores), both (N,).
        weight: (N,), (N, C) or flattened (N * C,).
        num_classes: C.
        ignore_index: Label of rows to ignore; None means -100.

    Returns:
        The parsed targets.

    Raises:
        TypeError: If ``target`` is neither a tensor nor a pair of tensors.
        ValueError: If a shape does not fit or a value is out of range. On a GPU a value
            out of range is a device-side assertion instead: looking at it here would
            stall every step.
    """
    num_rows, C = len(pred), num_classes
    labels = scores = soft = not_ignored = None
    _check_form(target)
    if not isinstance(target, Tensor):
        labels, scores = target
        _check_shape('target[1] (scores)', scores, (num_rows,))
    elif target.dim() == pred.dim():
        soft = target
        allowed = {(num_rows, C), tuple(pred.shape)}
        if tuple(soft.shape) not in allowed:
            raise ValueError(
                f'target: expected shape (N,) or one of {sorted(allowed)}, got '
                f'{tuple(soft.shape)}'
            )
        low, high = -_ROUNDING, 1 + _ROUNDING
        _check_range('target', soft, low, high, 'soft targets in [0, 1]')
        if soft.shape[1] < pred.shape[1]:
            background = 1 - soft.sum(dim=1, keepdim=True)
            soft = torch.cat((soft, background.clamp(min=0)), dim=1)
    else:
        labels = target

    if labels is not None:
        _check_shape('target (labels)', labels, (num_rows,))
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(
                f'target: expected integer labels of shape (N,), got {labels.dtype}'
            )
        ignored = labels == (_IGNORE_INDEX if ignore_index is None else ignore_index)
        labels = torch.where(ignored, C, labels).long()
        not_ignored = ~ignored
        _check_range(
            'target', labels, 0, C, f'labels in 0..{C}, where {C} is background'
        )

    weight, positive = _parse_weight(weight, num_rows, C, pred.shape[1])
    if positive is None:
        counted = pred.new_ones(num_rows, dtype=torch.bool)
    else:
        counted = positive
    if not_ignored is not None:
        counted = counted & not_ignored
    return Targets(labels, scores, soft, weight, counted, not_ignored, C)


def flatten_rows(
    pred: Tensor, target: Tensor | tuple[Tensor, Tensor], weight: Tensor | None
) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor], Tensor | None]:
    """Merge the leading dimensions of (..., C) predictions, their targets and weights.

    Raises:
        TypeError, ValueError: If the target has another form, or a shape does not begin
            as that of ``pred``.
    """
    _check_form(target)
    leading = pred.shape[:-1]
    if weight is not None:
        weight = _flatten('weight', weight, leading)
    if isinstance(target, Tensor):
        return pred.flatten(0, -2), _flatten('target', target, leading), weight
    labels, scores = (
        _flatten(f'target[{i}]', part, leading) for i, part in enumerate(target)
    )
    return pred.flatten(0, -2), (labels, scores), weight


def _flatten(name: str, tensor: Tensor, leading: torch.Size) -> Tensor:
    """Merge the leading dimensions, unless they are merged already."""
    if tensor.shape[: len(leading)] == leading:
        return tensor.reshape(leading.numel(), *tensor.shape[len(leading) :])
    if tensor.dim() < 2 or len(tensor) == leading.numel():
        return tensor
    raise ValueError(
        f'{name}: expected a shape that begins with {tuple(leading)}, as that of pred, '
        f'got {tuple(tensor.shape)}'
    )


def _check_form(target: object) -> None:
    if isinstance(target, Tensor):
        return
    if not isinstance(target, tuple | list):
        raise TypeError(
            'target: expected a tensor or a pair (labels, scores), got '
            f'{type(target).__name__}'
        )
    if len(target) != 2:
        raise ValueError(f'target: expected (labels, scores), got {len(target)} items')
    for i, part in enumerate(target):
        if not isinstance(part, Tensor):
            raise TypeError(
                f'target[{i}]: expected a tensor, got {type(part).__name__}'
            )


def _parse_weight(
    weight: Tensor | None, num_rows: int, num_classes: int, columns: int
) -> tuple[Tensor | None, Tensor | None]:
    """Weight as (N,) or (N, C), and which rows have a positive one."""
    if weight is None:
        return None, None
    if weight.numel() == num_rows:
        weight = weight.reshape(num_rows)
        return weight, weight > 0
    if columns == num_classes and weight.numel() == num_rows * num_classes:
        weight = weight.reshape(num_rows, num_classes)
        return weight, (weight > 0).any(dim=1)
    wanted = f'({num_rows},)'
    if columns == num_classes:
        wanted += f' or ({num_rows}, {num_classes})'
    raise ValueError(f'weight: expected shape {wanted}, got {tuple(weight.shape)}')


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f'{name}: expected shape {shape}, got {tuple(tensor.shape)}')


def _check_range(name: str, values: Tensor, low: float, high: float, what: str) -> None:
    if values.numel() == 0:
        return
    # A compiled graph would break where the host looks at a value.
    if values.device.type == 'cpu' and not torch.compiler.is_compiling():
        smallest, largest = (bound.item() for bound in values.aminmax())
        if not (low <= smallest and largest <= high):
            raise ValueError(
                f'{name}: expected {what}; got values from {smallest} to {largest}'
            )
    else:
        inside = ((values >= low) & (values <= high)).all()
        torch._assert_async(inside, f'{name}: expected {what}')
