"""Weights 1/sqrt(det P) of box losses, and where a loss gets them from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn as nn
from mmengine.dist import all_reduce
from torch import Tensor

from daal_mmdet.validation import check_choice, check_number

__all__ = [
    'NORMALIZATIONS',
    'CovarianceWeightedLoss',
    'RowTracker',
    'RowWeights',
    'covariance_weights',
    'difference_residual',
    'merge_weights',
]

NORMALIZATIONS = ('mean', None)
_MAX_RELATIVE_WEIGHT = 10.0


def covariance_weights(
    log_det: Tensor,
    normalize: str | None = 'mean',
    max_weight: float | None = None,
    level: Tensor | None = None,
    num_levels: int = 1,
) -> Tensor:
    """Weights 1/sqrt(det P) of the positives of a batch.

    ::

        w_i = 1/sqrt(det P_i)                                         normalize=None
        w_i = 1/sqrt(det P_i) / mean of the same over the positives   normalize='mean'
              of the batch that are of the same level

    both cut off at ``max_weight``. The first is the formula as printed by Liu et al.;
    it has the unit of a residual to the -4 and no upper bound, so it changes the scale
    of the loss with the scale of the residuals. The mean is over all ranks, in double
    precision, since det P spans the range of single precision. It is over one level
    because residuals differ more between levels than within one: over all of them the
    levels of small objects, and with these the classes, would hardly train.

    Args:
        log_det: log det P of each positive, (M,).
        normalize: 'mean' or None.
        max_weight: Largest weight, > 0. None is 10 with 'mean' and no limit without.
        level: Level of each positive, (M,), int64; None is one level.
        num_levels: Number of levels, the same on all ranks.

    Returns:
        (M,), float32, detached. With 'mean' their mean is 1 unless one was cut off.
    """
    weights = (-0.5 * log_det.detach().double()).exp()
    if normalize == 'mean':
        if level is None:
            level = torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
        total = weights.new_zeros(2, num_levels)
        total[0].index_add_(0, level, weights)
        total[1].index_add_(0, level, torch.ones_like(weights))
        all_reduce(total)
        mean = total[0] / total[1].clamp(min=1)
        weights = weights / mean[level]
        max_weight = _MAX_RELATIVE_WEIGHT if max_weight is None else max_weight
    if max_weight is not None:
        weights = weights.clamp(max=max_weight)
    return weights.float()


class RowWeights(NamedTuple):
    """Weights of the rows of one call of a loss.

    Attributes:
        rows: The positives among the rows, (M,), int64; None if all of them are. The
            other rows must have the element weight 0.
        weights: (M,).
    """

    rows: Tensor | None
    weights: Tensor

    def drop_rows(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None,
        reduction: str,
        avg_factor: float | None,
    ) -> tuple[RowWeights, Tensor, Tensor, Tensor | None]:
        """Leave out what is no positive, unless the reduction needs all rows.

        Returns:
            Weights of the rows, ``pred``, ``target`` and ``weight`` of what is left.
        """
        averaged = reduction == 'mean' and avg_factor is not None
        if self.rows is None or not (averaged or reduction == 'sum'):
            return self, pred, target, weight
        weight = None if weight is None else weight[self.rows]
        left = RowWeights(None, self.weights)
        return left, pred[self.rows], target[self.rows], weight


class RowTracker(Protocol):
    """What knows which slot each row of the next call of a loss belongs to."""

    def next_call(self, num_rows: int) -> RowWeights | None:
        """Weights of the rows of the call that begins; None if it isn't tracked."""

    def measure(self, residuals: Tensor) -> None:
        """Take the residuals, (M, 4), of the positives of that call."""


class CovarianceWeightedLoss(nn.Module):
    """Base of the box losses that are weighted by a tracked covariance.

    Args:
        normalize: As in :func:`covariance_weights`.
        max_weight: As in :func:`covariance_weights`.

    Attributes:
        tracker: Set by ``KalmanCovarianceHook``. It belongs to the training, not to the
            model: a copy of the loss has none.
    """

    def __init__(self, normalize: str | None, max_weight: float | None) -> None:
        super().__init__()
        check_choice('normalize', normalize, NORMALIZATIONS)
        if max_weight is not None:
            check_number('max_weight', max_weight, above=0)
        self.normalize = normalize
        self.max_weight = max_weight
        self.tracker: RowTracker | None = None
        self._warned = False

    def row_weights(self, log_det: Tensor, level: Tensor, num_levels: int) -> Tensor:
        """:func:`covariance_weights` with the options of this loss."""
        return covariance_weights(
            log_det, self.normalize, self.max_weight, level, num_levels
        )

    def _next_call(self, num_rows: int) -> RowWeights | None:
        if self.tracker is not None:
            return self.tracker.next_call(num_rows)
        if self.training and torch.is_grad_enabled() and not self._warned:
            self._warned = True
            warnings.warn(
                f'{type(self).__name__}: nothing tracks a covariance, so all boxes '
                'weigh the same. Add custom_hooks = '
                "[dict(type='KalmanCovarianceHook')] to the config.",
                stacklevel=3,
            )
        return None

    def _measure(
        self,
        call: RowWeights,
        pred: Tensor,
        target: Tensor,
        residual: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        # As elsewhere, an evaluation leaves no trace.
        if self.tracker is not None and self.training and torch.is_grad_enabled():
            rows = slice(None) if call.rows is None else call.rows
            self.tracker.measure(residual(pred.detach()[rows], target.detach()[rows]))


def difference_residual(pred: Tensor, target: Tensor) -> Tensor:
    """What is missing from predicted to true deltas: target - pred, in float32."""
    return target.float() - pred.float()


def merge_weights(call: RowWeights, weight: Tensor | None, pred: Tensor) -> Tensor:
    """Multiply element weights by the weights of the rows.

    Args:
        call: Weights of this call's positives.
        weight: Element weights, (N,), (N, 4) or None.
        pred: (N, 4).

    Returns:
        (N, 4).
    """
    scale = call.weights
    if call.rows is not None:
        scale = scale.new_ones(len(pred)).index_copy_(0, call.rows, scale)
    if weight is None:
        weight = torch.ones_like(pred)
    elif weight.dim() == 1:
        weight = weight[:, None].expand_as(pred)
    return weight * scale[:, None]
