"""UncertaintyAwareLoss: any per-box loss, scaled by 1/sqrt(det P)."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from torch import Tensor

from daal_mmdet.losses.covariance_weighting import (
    CovarianceWeightedLoss,
    difference_residual,
    merge_weights,
)
from daal_mmdet.validation import check_choice

__all__ = ['UncertaintyAwareLoss', 'box_residual']

RESIDUALS = ('auto', 'box', 'difference')
# By name, since older releases of mmdet lack some of them.
_OF_BOXES = {
    'IoULoss',
    'BoundedIoULoss',
    'GIoULoss',
    'DIoULoss',
    'CIoULoss',
    'EIoULoss',
    'SIoULoss',
}
_OF_DIFFERENCES = {'L1Loss', 'SmoothL1Loss', 'BalancedL1Loss', 'MSELoss'}
# A box that is a thousand times too small is as wrong as the filter needs to know.
_MIN_SCALE = 1e-3


def box_residual(pred: Tensor, target: Tensor) -> Tensor:
    """What is missing from predicted to true boxes, free of unit and scale.

    ::

        (dx / w, dy / h, log(w / w^), log(h / h^))

    with the distance of the centres and the size (w, h) of the true box: the deltas of
    Fast R-CNN seen from the truth. Pixels and units of stride give the same.

    Args:
        pred: Boxes (x1, y1, x2, y2), (M, 4).
        target: Boxes, (M, 4).

    Returns:
        (M, 4), float32. A side of no length counts as a thousandth of the true one.
    """
    pred, target = pred.detach().float(), target.detach().float()
    size = (target[:, 2:] - target[:, :2]).clamp(min=torch.finfo(pred.dtype).tiny)
    scale = ((pred[:, 2:] - pred[:, :2]) / size).clamp(min=_MIN_SCALE)
    shift = (target[:, :2] + target[:, 2:] - pred[:, :2] - pred[:, 2:]) / (2 * size)
    return torch.cat([shift, -scale.log()], dim=1)


@MODELS.register_module()
class UncertaintyAwareLoss(CovarianceWeightedLoss):
    """A box loss of mmdet in which noisy or badly known boxes weigh less.

    ::

        L = sum_i  1/sqrt(det P_i) loss(b_i, b^_i)

    The weight of :class:`UncertaintyAwareSmoothL1` for heads that regress decoded boxes
    (FCOS, ATSS, GFL, ...): ``loss_bbox=dict(_delete_=True, type='UncertaintyAwareLoss',
    loss=dict(type='GIoULoss', loss_weight=2.0))``. Needs the same hook; without it this
    is the inner loss, with a warning.

    Args:
        loss: Config of the inner loss; it must take element weights.
        normalize: 'mean' or None.
        max_weight: Largest weight of a box, > 0; None is 10 with 'mean' and no limit
            without.
        residual: What the filter measures: 'box' (see :func:`box_residual`; inputs are
            boxes x1, y1, x2, y2) or 'difference' (target - prediction). 'auto' is 'box'
            for mmdet's IoU losses and 'difference' for its L1, Smooth L1, balanced L1
            and squared error.

    Raises:
        TypeError: If ``loss`` is no config with a type.
        ValueError: If an option is out of range, or 'auto' doesn't know the loss.
    """

    def __init__(
        self,
        loss: dict,
        normalize: str | None = 'mean',
        max_weight: float | None = None,
        residual: str = 'auto',
    ) -> None:
        super().__init__(normalize, max_weight)
        check_choice('residual', residual, RESIDUALS)
        if not isinstance(loss, dict) or 'type' not in loss:
            raise TypeError(
                f"loss: expected a config like dict(type='GIoULoss'), got {loss!r}"
            )
        self.loss = MODELS.build(loss)
        if residual == 'auto':
            residual = self._kind_of(self.loss)
        self.residual = residual

    @staticmethod
    def _kind_of(loss: object) -> str:
        names = {base.__name__ for base in type(loss).__mro__}
        if names & _OF_BOXES:
            return 'box'
        if names & _OF_DIFFERENCES:
            return 'difference'
        raise ValueError(
            f"residual: 'auto' doesn't know what {type(loss).__name__} compares; set "
            "'box' (x1, y1, x2, y2) or 'difference'"
        )

    @property
    def loss_weight(self) -> float:
        """Factor of the inner loss, which some heads read."""
        return self.loss.loss_weight

    @property
    def reduction(self) -> str:
        """Reduction of the inner loss."""
        return self.loss.reduction

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
            reduction_override: Replaces the reduction of the inner loss.

        Returns:
            What the inner loss returns, in float32 at least.
        """
        if pred.dtype in (torch.float16, torch.bfloat16):
            # The area of a box of 256 pixels is more than float16 holds.
            pred = pred.float()
        call = self._next_call(len(pred))
        if call is not None:
            # The inner loss sees the positives only, where it may.
            reduction = reduction_override or self.reduction
            call, pred, target, weight = call.drop_rows(
                pred, target, weight, reduction, avg_factor
            )
            residual = box_residual if self.residual == 'box' else difference_residual
            self._measure(call, pred, target, residual)
            weight = merge_weights(call, weight, pred)
        return self.loss(
            pred,
            target,
            weight,
            avg_factor=avg_factor,
            reduction_override=reduction_override,
        )
