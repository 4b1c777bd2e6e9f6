"""UncertaintyAwareSmoothL1: Smooth L1 of boxes, scaled by 1/sqrt(det P)."""

from __future__ import annotations

from mmdet.models.losses.smooth_l1_loss import SmoothL1Loss, l1_loss, smooth_l1_loss
from mmdet.registry import MODELS
from torch import Tensor

from daal_mmdet.losses.covariance_weighting import (
    CovarianceWeightedLoss,
    RowWeights,
    difference_residual,
    merge_weights,
)
from daal_mmdet.validation import REDUCTIONS, check_choice, check_number

__all__ = ['UncertaintyAwareSmoothL1', 'uncertainty_aware_smooth_l1']


def uncertainty_aware_smooth_l1(
    pred: Tensor,
    target: Tensor,
    call: RowWeights | None = None,
    weight: Tensor | None = None,
    beta: float = 1.0,
    reduction: str = 'mean',
    avg_factor: float | None = None,
) -> Tensor:
    """Smooth L1 in which each row has a weight of its own.

    ::

        L = sum_i  w_i SmoothL1(d_i, d^_i),      w_i = 1/sqrt(det P_i)

    Only the positive rows are computed where the reduction allows it.

    Args:
        pred: (N, 4), deltas or boxes.
        target: (N, 4).
        call: w_i of the positives; None is plain Smooth L1.
        weight: Element weights, (N, 4) or (N,); 0 for rows that are no positives.
        beta: Where the square goes over into the line, >= 0; 0 is L1.
        reduction: 'none', 'mean' (over all 4 N numbers, or by ``avg_factor``), 'sum'.
        avg_factor: Divisor of the sum, for 'mean'.

    Returns:
        A scalar, or (N, 4) with 'none'. No rows or no positives give 0, with a gradient
        of zeros.

    Raises:
        ValueError: If ``avg_factor`` comes with 'sum'.
    """
    if call is not None:
        call, pred, target, weight = call.drop_rows(
            pred, target, weight, reduction, avg_factor
        )
    if not len(pred):
        return pred * 0 if reduction == 'none' else pred.sum() * 0
    if call is not None:
        weight = merge_weights(call, weight, pred)
    elif weight is not None and weight.dim() == 1:
        weight = weight[:, None]
    if beta == 0:
        return l1_loss(pred, target, weight, reduction=reduction, avg_factor=avg_factor)
    return smooth_l1_loss(
        pred, target, weight, beta=beta, reduction=reduction, avg_factor=avg_factor
    )


@MODELS.register_module()
class UncertaintyAwareSmoothL1(CovarianceWeightedLoss, SmoothL1Loss):
    """Smooth L1 in which boxes whose regression is noisy or badly known weigh less.

    ::

        L = sum_i  1/sqrt(det P_i) SmoothL1(d_i, d^_i)

    (Liu et al., "Dynamically adaptive adjustment loss function biased towards
    few-class learning", IET Image Processing 17(2), 2023.) P_i is the covariance of a
    Kalman filter that follows the residuals of the anchor of row i, as
    :class:`~daal_mmdet.hooks.KalmanCovarianceHook` tracks it; the config needs::

        custom_hooks = [dict(type='KalmanCovarianceHook')]

    Without the hook this is mmdet's ``SmoothL1Loss`` (``L1Loss`` for ``beta=0``), with
    a warning. Takes all keys of both, so it drops in where a base config has one, and
    is a ``SmoothL1Loss``, whose ``beta`` Dynamic R-CNN adapts.

    Deviation: as printed the weights have no scale of their own, so that they change
    the balance between the losses. ``normalize='mean'`` divides by their mean over the
    positives that the batch has in a level; ``normalize=None`` is the formula as
    printed.

    Args:
        beta: Where the square goes over into the line, >= 0, in units of the residual;
            0 is L1.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: Factor of the loss.
        normalize: 'mean' or None.
        max_weight: Largest weight of a box, > 0; None is 10 with 'mean' and no limit
            without.

    Raises:
        TypeError: If a number is none.
        ValueError: If an option is out of range; the message names it.
    """

    def __init__(
        self,
        beta: float = 1.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        normalize: str | None = 'mean',
        max_weight: float | None = None,
    ) -> None:
        super().__init__(normalize, max_weight)
        check_number('beta', beta, low=0)
        check_choice('reduction', reduction, REDUCTIONS)
        check_number('loss_weight', loss_weight)
        self.beta = beta
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the loss and hand the residuals of the positives to the filter.

        Args:
            pred: (N, 4).
            target: (N, 4).
            weight: (N, 4) or (N,).
            avg_factor: Divisor of the sum, for 'mean'.
            reduction_override: Replaces ``reduction``.

        Returns:
            A scalar, or (N, 4) with 'none'.

        Raises:
            ValueError: If ``reduction_override`` is unknown.
        """
        reduction = reduction_override or self.reduction
        check_choice('reduction_override', reduction, REDUCTIONS)
        call = self._next_call(len(pred))
        if call is not None:
            # Here, so that filter and loss share the rows that are picked.
            call, pred, target, weight = call.drop_rows(
                pred, target, weight, reduction, avg_factor
            )
            self._measure(call, pred, target, difference_residual)
        return self.loss_weight * uncertainty_aware_smooth_l1(
            pred, target, call, weight, self.beta, reduction, avg_factor
        )
