"""The supervised part of DAAL: a focal loss for any target, reduced as mmdet does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from daal_mmdet.losses import focal, fused_focal
from daal_mmdet.losses.targets import Targets
from daal_mmdet.validation import check_choice, check_flag, check_number

__all__ = ['TaskTerm']

_FLOAT32_EPS = torch.finfo(torch.float32).eps
# Probabilities of a softmax: 1 / p, times weights, must fit into float32.
_LEAST_PROBABILITY = 1e-30
# Logits that the BNM term gets for probabilities.
_PROBABILITY_EPS = 1e-6
# Least and greatest probability that is taken for one. Float16: the smallest normal
# number, and the largest one below 1. What bfloat16 rounds to 1 begins at 0.998.
_SATURATED = {
    torch.float16: (
        torch.finfo(torch.float16).tiny,
        1 - torch.finfo(torch.float16).eps / 2,
    ),
    torch.bfloat16: (0.0, 1 - torch.finfo(torch.bfloat16).eps / 4),
}


class TaskTerm(nn.Module):
    """Focal loss, or focal cross entropy, with class and row weights.

    Arguments are those of :class:`daal_mmdet.losses.DAALLoss`.

    Raises:
        TypeError, ValueError: If an argument is out of its range or can't be honoured;
            the message names it.
    """

    class_weight: Tensor | None
    gamma: float | Tensor
    beta: float | Tensor

    def __init__(
        self,
        use_sigmoid: bool = False,
        gamma: float | Sequence[float] | None = None,
        alpha: float | str | None = 'auto',
        beta: float | Sequence[float] | None = None,
        activated: bool = False,
        class_weight: Sequence[float] | Tensor | float | None = None,
        ignore_index: int | None = None,
        avg_non_ignore: bool = False,
        bg_cls_weight: float | None = None,
    ) -> None:
        super().__init__()
        check_flag('use_sigmoid', use_sigmoid)
        check_flag('activated', activated)
        check_flag('avg_non_ignore', avg_non_ignore)
        if gamma is None:
            gamma = 2.0 if use_sigmoid else 0.0
        if isinstance(alpha, str):
            check_choice('alpha', alpha, ('auto', None))
            alpha = 0.25 if use_sigmoid else None
        if alpha is not None:
            check_number('alpha', alpha, low=0, high=1)
        if beta is not None and not use_sigmoid:
            raise ValueError(
                'beta: quality targets need use_sigmoid=True, got use_sigmoid=False'
            )
        if ignore_index is not None:
            check_number('ignore_index', ignore_index, integer=True)
        if bg_cls_weight is not None:
            check_number('bg_cls_weight', bg_cls_weight, low=0)
            if use_sigmoid:
                raise ValueError(
                    'bg_cls_weight: there is no background class to weigh with '
                    f'use_sigmoid=True, got {bg_cls_weight!r}'
                )
        if class_weight is not None:
            class_weight = _as_tensor('class_weight', class_weight)
            sound = (class_weight >= 0) & class_weight.isfinite()
            if class_weight.dim() > 1 or not bool(sound.all()):
                raise ValueError(
                    'class_weight: expected one finite value >= 0 a class, got '
                    f'{class_weight.tolist()}'
                )
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha
        self.activated = activated
        self.ignore_index = ignore_index
        self.avg_non_ignore = avg_non_ignore
        self.bg_cls_weight = bg_cls_weight
        # Constants of the config, on the device but not in the checkpoint.
        self.register_buffer('class_weight', class_weight, persistent=False)
        beta = gamma if beta is None else beta
        for name, value in (('gamma', gamma), ('beta', beta)):
            exponent = _parse_exponent(name, value)
            if isinstance(exponent, Tensor):
                self.register_buffer(name, exponent, persistent=False)
            else:
                setattr(self, name, exponent)

    def forward(
        self,
        pred: Tensor,
        targets: Targets,
        balance: Tensor | None = None,
        reduction: str = 'mean',
        avg_factor: Tensor | float | None = None,
        take: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the loss.

        Args:
            pred: (N, C) if ``use_sigmoid``, else (N, C + 1).
            targets: The parsed targets.
            balance: Weights of the classes' positive terms, (C,).
            reduction: 'none', 'mean' or 'sum'.
            avg_factor: What 'mean' divides by; None means the number of entries.
            take: (K,), int64, rows of ``pred`` to hand out for another loss, which is
                cheaper to differentiate than to index ``pred`` itself; None for none.

        Returns:
            A scalar; for 'none' (N, C), or (N,) under a softmax and for quality
            targets, as in mmdet. And ``pred[take]``, or None.

        Raises:
            ValueError: If ``avg_factor`` comes with 'sum', or ``class_weight`` or the
                form of the target does not fit; on a CPU, if ``activated`` predictions
                are no probabilities.
        """
        if targets.scores is not None and not self.use_sigmoid:
            raise ValueError('target: a pair (labels, scores) needs use_sigmoid=True')
        if avg_factor is not None and reduction == 'sum':
            raise ValueError("avg_factor: can not be used with reduction='sum'")
        if self.activated:
            _check_probabilities(pred)
            pred = _unsaturated(pred)
        C, weight = targets.num_classes, targets.weight
        self._check_exponents(C)
        class_weight = self.combined_weights(balance, C, pred.device)
        if weight is not None and weight.dim() > 1 and targets.scores is not None:
            raise ValueError(
                'weight: expected one a row for (labels, scores) targets, got shape '
                f'{tuple(weight.shape)}'
            )
        with torch.autocast(device_type=pred.device.type, enabled=False):
            if reduction != 'none' and self._can_fuse(targets):
                total, rows = self._fused_sum(pred, targets, class_weight, take)
            else:
                rows = None if take is None else pred[take]
                elements = self._elements(pred, targets, class_weight)
                if weight is not None:
                    rows_only = weight.dim() < elements.dim()
                    elements = elements * (weight[:, None] if rows_only else weight)
                if targets.not_ignored is not None:
                    keep = targets.not_ignored
                    keep = keep[:, None] if elements.dim() > 1 else keep
                    elements = torch.where(keep, elements, 0.0)
                if reduction == 'none':
                    return elements, rows
                total = elements.sum()
            divisor = self.divisor(pred, targets, reduction, avg_factor)
            return total / divisor, rows

    def divisor(
        self,
        pred: Tensor,
        targets: Targets,
        reduction: str,
        avg_factor: Tensor | float | None,
    ) -> Tensor | float:
        """What a sum over rows is divided by, for 'sum' 1."""
        if reduction == 'sum':
            return 1.0
        if avg_factor is not None:
            if isinstance(avg_factor, Tensor):
                # DETR's is of shape (1,).
                avg_factor = avg_factor.reshape(())
            # As mmdet's weight_reduce_loss, so that 0 does not divide.
            return avg_factor + _FLOAT32_EPS
        by_row = not self.use_sigmoid or targets.scores is not None
        columns = 1 if by_row else pred.shape[1]
        if self.avg_non_ignore and targets.not_ignored is not None:
            return targets.not_ignored.sum().clamp(min=1) * columns
        return max(len(pred), 1) * columns

    def combined_weights(
        self, balance: Tensor | None, num_classes: int, device: torch.device
    ) -> Tensor | None:
        """Adaptive and fixed class weights: (C,) for a sigmoid, else (C + 1,)."""
        fixed = self.class_weight
        size = num_classes if self.use_sigmoid else num_classes + 1
        if fixed is not None and fixed.dim() == 1 and len(fixed) != size:
            raise ValueError(
                f'class_weight: expected {size} values for {num_classes} classes with '
                f'use_sigmoid={self.use_sigmoid}, got {len(fixed)}'
            )
        if balance is None and self.bg_cls_weight is None:
            return None if fixed is None else fixed.expand(size)
        if balance is None:
            balance = torch.ones(num_classes, device=device)
        if not self.use_sigmoid:
            background = 1.0 if self.bg_cls_weight is None else self.bg_cls_weight
            balance = F.pad(balance, (0, 1), value=background)
        return balance if fixed is None else balance * fixed

    def class_logits(self, pred: Tensor) -> Tensor:
        """Logits of the C foreground classes, whatever form ``pred`` has, (N, C)."""
        classes = pred if self.use_sigmoid else pred[:, :-1]
        if not self.activated:
            return classes
        classes = _unsaturated(classes).float()
        if self.use_sigmoid:
            return torch.logit(classes, eps=_PROBABILITY_EPS)
        return classes.clamp(min=_PROBABILITY_EPS).log()

    def _elements(
        self, pred: Tensor, targets: Targets, class_weight: Tensor | None
    ) -> Tensor:
        """Loss of every entry (sigmoid) or row (softmax, quality), without weights."""
        C, labels = targets.num_classes, targets.labels
        if not self.use_sigmoid:
            log_p = self._log_probabilities(pred)
            if labels is None:
                return focal.softmax_focal_soft_rows(
                    log_p, targets.soft, self.gamma, self.alpha, class_weight
                )
            rows = focal.softmax_focal_rows(log_p, labels, self.gamma, self.alpha)
            return rows if class_weight is None else rows * class_weight[labels]
        if targets.scores is not None:
            elements = focal.quality_focal_elements(
                pred, labels, targets.scores, self.beta, class_weight, self.activated
            )
            return elements.sum(dim=1)
        soft = targets.soft
        if labels is not None:
            soft = pred.new_zeros(len(labels), C + 1)
            soft = soft.scatter_(1, labels[:, None], 1.0)[:, :C]
        function = (
            focal.probability_focal_elements
            if self.activated
            else focal.sigmoid_focal_elements
        )
        return function(pred, soft, self.gamma, self.alpha, class_weight)

    def _log_probabilities(self, pred: Tensor) -> Tensor:
        dtype = torch.promote_types(pred.dtype, torch.float32)
        if self.activated:
            return pred.to(dtype).clamp(min=_LEAST_PROBABILITY).log()
        return F.log_softmax(pred, dim=1, dtype=dtype)

    def _can_fuse(self, targets: Targets) -> bool:
        """Whether one pass can sum up the loss: it differentiates by logits only.

        A compiler fuses the entries by itself.
        """
        if self.activated or torch.compiler.is_compiling():
            return False
        constants = (targets.scores, targets.soft, targets.weight)
        return not any(
            tensor is not None and tensor.requires_grad for tensor in constants
        )

    def _fused_sum(
        self,
        pred: Tensor,
        targets: Targets,
        class_weight: Tensor | None,
        take: Tensor | None,
    ) -> fused_focal.FocalSum:
        """Sum of :meth:`_elements` with the weights of rows or entries."""
        labels, weight, alpha = targets.labels, targets.weight, self.alpha
        if targets.not_ignored is not None:
            keep = targets.not_ignored.to(torch.float32)
            if weight is None:
                weight = keep
            else:
                weight = weight * (keep[:, None] if weight.dim() > 1 else keep)
        if not self.use_sigmoid:
            target, function = labels, fused_focal.softmax_focal_sum
            if labels is None:
                target, function = targets.soft, fused_focal.softmax_focal_soft_sum
            return function(pred, target, self.gamma, alpha, weight, class_weight, take)
        if labels is None:
            return fused_focal.sigmoid_focal_soft_sum(
                pred, targets.soft, self.gamma, alpha, weight, class_weight, take
            )
        gamma, scores = self.gamma, targets.scores
        if scores is not None:
            gamma, alpha = self.beta, None
        return fused_focal.sigmoid_focal_sum(
            pred, labels, gamma, alpha, weight, class_weight, scores, take
        )

    def _check_exponents(self, num_classes: int) -> None:
        size = num_classes if self.use_sigmoid else num_classes + 1
        for name in ('gamma', 'beta'):
            exponent = getattr(self, name)
            if isinstance(exponent, Tensor) and len(exponent) != size:
                raise ValueError(
                    f'{name}: expected one value or {size} for {num_classes} classes '
                    f'with use_sigmoid={self.use_sigmoid}, got {len(exponent)}'
                )


def _parse_exponent(name: str, value: object) -> float | Tensor:
    if not isinstance(value, Sequence | Tensor) or isinstance(value, str):
        check_number(name, value, low=0)
        return value
    exponents = _as_tensor(name, value)
    if exponents.dim() != 1 or not bool((exponents >= 0).all()):
        raise ValueError(
            f'{name}: expected a number >= 0 or one a class, got {exponents.tolist()}'
        )
    return exponents


def _as_tensor(name: str, value: object) -> Tensor:
    try:
        return torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f'{name}: expected numbers, got {value!r}') from error


def _unsaturated(probabilities: Tensor) -> Tensor:
    """Half precision as float32, away from 0 and 1; other types as they are.

    The derivative of a logarithm is infinite there, and one of 1e12, where PyTorch ends
    it, does not fit into float16: infinity times a slope of 0 is NaN. The logarithm of
    what is left of a probability that bfloat16 rounds to 1 would be -100.
    """
    if probabilities.dtype not in _SATURATED:
        return probabilities
    return probabilities.float().clamp(*_SATURATED[probabilities.dtype])


def _check_probabilities(pred: Tensor) -> None:
    # Looking at a value would stall a GPU, and break a compiled graph.
    if pred.device.type != 'cpu' or torch.compiler.is_compiling() or not pred.numel():
        return
    low, high = (bound.item() for bound in pred.detach().aminmax())
    if low < 0 or high > 1:
        raise ValueError(
            'pred: expected probabilities in [0, 1] with activated=True, got values '
            f'from {low:.4g} to {high:.4g}'
        )
