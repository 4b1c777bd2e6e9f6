"""Equalized focal loss, a baseline of the benchmark."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmengine.dist import all_reduce
from torch import Tensor

from daal_mmdet.losses.focal import sigmoid_focal_elements
from daal_mmdet.validation import REDUCTIONS, check_choice, check_number

__all__ = ['EqualizedFocalLoss', 'equalized_focal_elements']

_EPS = 1e-10


def equalized_focal_elements(
    logits: Tensor,
    targets: Tensor,
    gradient_ratio: Tensor,
    gamma: float = 2.0,
    scale_factor: float = 8.0,
    alpha: float = 0.25,
) -> Tensor:
    """Equalized focal loss of every entry.

    ::

        gamma_j = gamma + s (1 - g_j)
        -alpha_t (gamma_j / gamma) (1 - p_t)^gamma_j log p_t

    with p = sigmoid(logits), p_t = p at targets of 1 and 1 - p at 0, alpha_t likewise
    (B. Li et al., "Equalized focal loss for dense long-tailed object detection", CVPR
    2022, eqs. 4-6).

    Args:
        logits: (N, C).
        targets: (N, C), 0 or 1.
        gradient_ratio: g, (C,), in [0, 1]: 1 for a class whose positives and negatives
            pull alike, less for a rare one. Not differentiated.
        gamma: gamma_b, > 0.
        scale_factor: s, >= 0.
        alpha: Share of the positive term in [0, 1].

    Returns:
        (N, C), in float32 at least.
    """
    focus = gamma + scale_factor * (1 - gradient_ratio.detach())
    return focus / gamma * sigmoid_focal_elements(logits, targets, focus, alpha)


@MODELS.register_module()
class EqualizedFocalLoss(nn.Module):
    """Focal loss with a focusing exponent and a weight of its own for each class.

    See :func:`equalized_focal_elements`. The gradient ratio is that of the authors'
    code: g_j = min(1, sum |gradient at positives| / sum |gradient at negatives|), sums
    over everything trained so far of the gradients that reach the logits of class j,
    and 1 at the start.

    Deviation: theirs collects the gradients of an iteration once all five FPN levels
    are there; a hook on the logits does so here for any number of calls, which is the
    same, since all levels' losses are computed before the first gradient. Under AMP
    the gradients are scaled ones. On several ranks each keeps its own sums, and they
    are added where the ratio is used.

    For comparisons only; not one of this package's losses for detectors.

    Args:
        num_classes: C.
        use_sigmoid: True; no other form exists.
        gamma: gamma_b, > 0.
        alpha: Share of the positive term in [0, 1].
        scale_factor: s, >= 0; 0 is mmdet's ``FocalLoss``.
        reduction: 'mean', 'sum' or 'none'.
        loss_weight: Factor of the whole, >= 0.

    Raises:
        TypeError, ValueError: If an argument is out of its range.
    """

    pos_grad: Tensor
    neg_grad: Tensor

    def __init__(
        self,
        num_classes: int,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        scale_factor: float = 8.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_number('num_classes', num_classes, low=1, integer=True)
        check_choice('use_sigmoid', use_sigmoid, (True,))
        check_number('gamma', gamma, above=0)
        check_number('alpha', alpha, low=0, high=1)
        check_number('scale_factor', scale_factor, low=0)
        check_choice('reduction', reduction, REDUCTIONS)
        check_number('loss_weight', loss_weight, low=0)
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.scale_factor = scale_factor
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.register_buffer('pos_grad', torch.zeros(num_classes))
        self.register_buffer('neg_grad', torch.zeros(num_classes))

    def gradient_ratio(self) -> Tensor:
        """Gradient ratio of each class, (C,), in [0, 1]; 1 where it got none."""
        sums = torch.stack((self.pos_grad, self.neg_grad))
        all_reduce(sums, op='sum')
        positive, negative = sums
        ratio = (positive / (negative + _EPS)).clamp(max=1)
        return torch.where(positive + negative > 0, ratio, torch.ones_like(ratio))

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the loss; its backward pass adds to the sums of gradients.

        Args:
            pred: (N, C), logits.
            target: (N,), int64 in 0..C, C is background.
            weight: (N,) or (N, C).
            avg_factor: Divides the sum of the loss.
            reduction_override: Replaces ``reduction``.

        Raises:
            ValueError: If ``pred`` has another number of classes, or ``target`` holds
                no labels.
        """
        C = len(self.pos_grad)
        if pred.shape[1] != C or target.dim() != 1:
            raise ValueError(
                f'expected predictions (N, {C}) and labels (N,), got '
                f'{tuple(pred.shape)} and {tuple(target.shape)}'
            )
        one_hot = F.one_hot(target, C + 1)[:, :C]
        if self.training and pred.requires_grad:
            # On a view of its own, so that only this loss's gradient is seen.
            pred = pred.view_as(pred)
            pred.register_hook(lambda grad: self._collect(grad, one_hot))
        loss = equalized_focal_elements(
            pred,
            one_hot,
            self.gradient_ratio(),
            self.gamma,
            self.scale_factor,
            self.alpha,
        )
        if weight is not None and weight.dim() == 1:
            weight = weight[:, None]
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(
            loss, weight, reduction, avg_factor
        )

    def _collect(self, grad: Tensor, one_hot: Tensor) -> None:
        size = grad.detach().abs().to(self.pos_grad.dtype)
        positive = (size * one_hot).sum(dim=0)
        negative = (size * (1 - one_hot)).sum(dim=0)
        # AMP steps over an iteration whose gradients overflow; so do the sums.
        finite = torch.isfinite(positive + negative).all()
        self.pos_grad += torch.where(finite, positive, torch.zeros_like(positive))
        self.neg_grad += torch.where(finite, negative, torch.zeros_like(negative))
