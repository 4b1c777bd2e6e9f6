"""Loss of a density map: squared or absolute error, and adaptive nuclear norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from torch import Tensor

from daal_mmdet.losses.adaptive_composition import AdaptiveComposition
from daal_mmdet.losses.density_nuclear_norm import KINDS, density_nuclear_norm_loss
from daal_mmdet.losses.iteration_scalars import check_prefix
from daal_mmdet.nuclear_norm import METHODS
from daal_mmdet.validation import check_choice, check_number

__all__ = ['CountingLoss']

TASKS = ('mse', 'mae')


@MODELS.register_module()
class CountingLoss(AdaptiveComposition):
    """Error of density maps, composed with their nuclear norm.

    ::

        L_k = loss_weight * (L_task + lambda_k * L_bnm)

        'mse'   L_task = 1/B sum_b sum_p (D_b(p) - D*_b(p))^2
        'mae'   L_task = 1/B sum_b sum_p |D_b(p) - D*_b(p)|

    L_bnm is :func:`density_nuclear_norm_loss`; lambda and its filter are those of
    ``DAALLoss``, see :class:`AdaptiveComposition`. The four schemes of Liu et al. (IET
    Image Processing 17(2), 2023): ``bnm_weight=0``; ``bnm_weight=1.0,
    bnm_adaptive=False``; ``bnm_weight=0.05, bnm_adaptive=False``; the default.

    The sum over cells is that of CSRNet's published code, ``MSELoss(size_average=
    False)``; its paper prints it halved. Both are meant for the batches of one image
    that CSRNet trains with; here more images are averaged.

    Args:
        task: 'mse' or 'mae'.
        loss_weight: Factor of the whole, >= 0.
        bnm_weight: Weight of L_bnm, >= 0.
        bnm_adaptive: Whether the Kalman gain scales ``bnm_weight``.
        bnm_kind: 'ratio', scale free, or 'raw', the paper's.
        bnm_method: 'auto', 'svd', 'gram', 'newton_schulz' or 'fast'.
        bnm_min_norm: Norm of an almost empty map, in heads, > 0; for 'ratio'.
        update_cycle: Iterations between updates of the proportion, >= 1; None predicts
            them.
        update_fraction: Predicted change of the task loss, as a share of it, > 0, that
            calls for an update.
        update_cycle_range: Smallest and largest predicted cycle, in iterations, >= 1.
        trend_noise: Relative process noise of the task filter, > 0.
        noise_forgetting: Forgetting factor of its measurement noise, in [0, 1].
        log_prefix: First part of the scalars' names, ``train/<log_prefix>_...``,
            without 'loss' in it.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        task: str = 'mse',
        loss_weight: float = 1.0,
        bnm_weight: float = 0.05,
        bnm_adaptive: bool = True,
        bnm_kind: str = 'ratio',
        bnm_method: str = 'auto',
        bnm_min_norm: float = 0.1,
        update_cycle: int | None = None,
        update_fraction: float = 0.1,
        update_cycle_range: Sequence[int] = (1, 100),
        trend_noise: float = 1e-3,
        noise_forgetting: float = 0.95,
        log_prefix: str = 'counting',
    ) -> None:
        check_prefix('log_prefix', log_prefix)
        super().__init__(
            bnm_weight,
            bnm_adaptive,
            update_cycle,
            update_fraction,
            update_cycle_range,
            trend_noise,
            noise_forgetting,
            log_prefix,
        )
        check_choice('task', task, TASKS)
        check_number('loss_weight', loss_weight, low=0)
        check_choice('bnm_kind', bnm_kind, KINDS)
        check_choice('bnm_method', bnm_method, METHODS)
        check_number('bnm_min_norm', bnm_min_norm, above=0)
        self.task = task
        self.loss_weight = loss_weight
        self.bnm_kind = bnm_kind
        self.bnm_method = bnm_method
        self.bnm_min_norm = bnm_min_norm

    def forward(
        self, pred: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of a batch of maps.

        Args:
            pred: D, (B, H, W), heads a cell.
            target: D*, (B, H, W).
            mask: (B, H, W), 1 on the rectangle of cells that count, 0 elsewhere; None
                for all.

        Returns:
            A scalar in float32 at least; 0 with a zero gradient for no maps.

        Raises:
            ValueError: If a shape does not fit.
        """
        for name, other in (('target', target), ('mask', mask)):
            if other is not None and other.shape != pred.shape:
                raise ValueError(
                    f'{name}: expected shape {tuple(pred.shape)} as pred, got '
                    f'{tuple(other.shape)}'
                )
        if pred.dim() != 3:
            raise ValueError(f'pred: expected (B, H, W), got {tuple(pred.shape)}')
        if pred.dtype != torch.float64:
            pred = pred.float()
        feeds = self.training and torch.is_grad_enabled() and len(pred) > 0
        alone = self.begin_call(feeds)
        error = pred - target
        if mask is not None:
            error = torch.where(mask > 0, error, 0.0)
        error = error.square() if self.task == 'mse' else error.abs()
        task = error.sum() / max(len(pred), 1)
        bnm = None
        if self.bnm_weight > 0:
            bnm = density_nuclear_norm_loss(
                pred, mask, self.bnm_kind, self.bnm_method, self.bnm_min_norm
            )
        loss, bnm = self.compose(task, bnm)
        if feeds:
            self.end_call(alone, task, bnm)
        return self.loss_weight * loss
