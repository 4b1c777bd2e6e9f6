"""Focal losses of every entry or row, for every kind of target a head may pass.

They are *not* averaged, are computed in float32 at least, and can be differentiated
twice. :mod:`daal_mmdet.losses.fused_focal` has their sums, at less time and memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    'probability_focal_elements',
    'quality_focal_elements',
    'sigmoid_focal_elements',
    'softmax_focal_rows',
    'softmax_focal_soft_rows',
]

_PROBABILITY_EPS = 1e-12


def sigmoid_focal_elements(
    logits: Tensor,
    targets: Tensor,
    gamma: float | Tensor = 2.0,
    alpha: float | None = 0.25,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Sigmoid focal loss of every entry, for one-hot or soft targets.

    As mmdet's ``py_sigmoid_focal_loss``: with q = (1 - p) t + p (1 - t) the distance
    from the target, a_t q^gamma * BCE(p, t), whose positive part is scaled by
    ``pos_weight`` as in ``torch.nn.functional.binary_cross_entropy_with_logits``.

    Args:
        logits: (N, C).
        targets: (N, C), in [0, 1].
        gamma: Focusing exponent, >= 0; or one for each class, (C,).
        alpha: Share of the positive term in [0, 1]; None leaves both terms at 1.
        pos_weight: (C,).

    Returns:
        (N, C); twice differentiable.
    """
    logits = _at_least_float32(logits)
    targets = targets.to(logits.dtype)
    bce = F.binary_cross_entropy_with_logits(
        logits, targets, reduction='none', pos_weight=pos_weight
    )
    return _modulate(bce, logits.sigmoid(), targets, gamma, alpha)


def probability_focal_elements(
    probabilities: Tensor,
    targets: Tensor,
    gamma: float | Tensor = 2.0,
    alpha: float | None = 0.25,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """:func:`sigmoid_focal_elements` for input that went through a sigmoid already.

    As in PyTorch's ``binary_cross_entropy`` a logarithm is clamped at -100, so that a
    probability of exactly 0 or 1 gives a finite loss.

    Args:
        probabilities: (N, C), in [0, 1].
        targets: (N, C), in [0, 1].
        gamma: Focusing exponent, >= 0; or one for each class, (C,).
        alpha: Share of the positive term in [0, 1]; None leaves both terms at 1.
        pos_weight: (C,).

    Returns:
        (N, C).
    """
    p = _at_least_float32(probabilities)
    targets = targets.to(p.dtype)
    with torch.autocast(device_type=p.device.type, enabled=False):
        bce = F.binary_cross_entropy(p, targets, reduction='none')
    if pos_weight is not None:
        bce = bce * (1 + (pos_weight - 1) * targets)
    return _modulate(bce, p, targets, gamma, alpha)


def quality_focal_elements(
    predictions: Tensor,
    labels: Tensor,
    scores: Tensor,
    beta: float | Tensor = 2.0,
    pos_weight: Tensor | None = None,
    activated: bool = False,
) -> Tensor:
    """Quality focal loss of every entry.

    |t - p|^beta * BCE(p, t) with t = score at a row's label and 0 elsewhere (X. Li et
    al., "Generalized focal loss", NeurIPS 2020, eq. 4). ``pos_weight`` scales the
    entry at the label.

    Args:
        predictions: (N, C), logits, or probabilities if ``activated``.
        labels: (N,), int64 in 0..C; C is background.
        scores: (N,), quality in [0, 1] of each row, read where it is foreground.
        beta: Exponent, >= 0; or one for each class, (C,).
        pos_weight: (C,).
        activated: Whether ``predictions`` are probabilities.

    Returns:
        (N, C).
    """
    predictions = _at_least_float32(predictions)
    foreground, column = _label_columns(labels, predictions.shape[1])
    source = torch.where(foreground, scores.to(predictions.dtype), 0.0).unsqueeze(1)
    targets = torch.zeros_like(predictions).scatter(1, column, source)
    if activated:
        p = predictions
        with torch.autocast(device_type=p.device.type, enabled=False):
            bce = F.binary_cross_entropy(p, targets, reduction='none')
    else:
        p = predictions.sigmoid()
        bce = F.binary_cross_entropy_with_logits(predictions, targets, reduction='none')
    loss = bce * _power((targets - p).abs(), beta)
    if pos_weight is not None:
        weight = torch.where(foreground, pos_weight[column.squeeze(1)], 1.0)
        loss = loss * torch.ones_like(loss).scatter(
            1, column, weight.to(loss.dtype).unsqueeze(1)
        )
    return loss


def softmax_focal_rows(
    log_probabilities: Tensor,
    labels: Tensor,
    gamma: float | Tensor = 0.0,
    alpha: float | None = None,
) -> Tensor:
    """Focal cross entropy of every row: -alpha_t (1 - p_t)^gamma log p_t.

    Args:
        log_probabilities: (N, C + 1), background last.
        labels: (N,), int64 in 0..C; C is background.
        gamma: Focusing exponent, >= 0, 0 is plain cross entropy; or one for each
            class, (C + 1,).
        alpha: Weight of foreground rows in [0, 1], background rows get 1 - alpha; None
            leaves both at 1.

    Returns:
        (N,).
    """
    loss = F.nll_loss(log_probabilities, labels, reduction='none')
    if isinstance(gamma, Tensor):
        gamma = gamma[labels]
    if isinstance(gamma, Tensor) or gamma != 0:
        # 1 - p_t, exact where p_t is close to 1.
        loss = loss * _power(-torch.expm1(-loss), gamma)
    if alpha is not None:
        background = labels == log_probabilities.shape[1] - 1
        loss = loss * torch.where(background, 1 - alpha, alpha)
    return loss


def softmax_focal_soft_rows(
    log_probabilities: Tensor,
    targets: Tensor,
    gamma: float | Tensor = 0.0,
    alpha: float | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Focal cross entropy of every row for a target distribution.

    -sum_c t_c v_c alpha_c (1 - p_c)^gamma log p_c.

    Args:
        log_probabilities: (N, C + 1), background last; without ``alpha`` also (N, C).
        targets: As ``log_probabilities``, >= 0.
        gamma: Focusing exponent, >= 0; or one for each column.
        alpha: Weight of foreground classes in [0, 1], background gets 1 - alpha; None
            leaves both at 1.
        class_weight: v, one for each column.

    Returns:
        (N,).
    """
    loss = -targets.to(log_probabilities.dtype) * log_probabilities
    if isinstance(gamma, Tensor) or gamma != 0:
        loss = loss * _power(-torch.expm1(log_probabilities), gamma)
    if alpha is not None:
        scale = torch.full_like(loss[:1], alpha)
        scale[:, -1] = 1 - alpha
        loss = loss * scale
    if class_weight is not None:
        loss = loss * class_weight
    return loss.sum(dim=1)


def _modulate(
    bce: Tensor,
    p: Tensor,
    targets: Tensor,
    gamma: float | Tensor,
    alpha: float | None,
) -> Tensor:
    if isinstance(gamma, Tensor) or gamma != 0:
        bce = bce * _power((1 - p) * targets + p * (1 - targets), gamma)
    if alpha is not None:
        bce = bce * (alpha * targets + (1 - alpha) * (1 - targets))
    return bce


def _power(distance: Tensor, exponent: float | Tensor) -> Tensor:
    each = isinstance(exponent, Tensor)
    if not each and exponent == 2:
        return distance.square()
    if each or exponent < 1:
        # The derivative of d^g is infinite at d = 0 for 0 < g < 1.
        distance = distance.clamp(min=_PROBABILITY_EPS)
    return distance.pow(exponent)


def _label_columns(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Foreground mask (N,) and a column to scatter to (N, 1), 0 for background."""
    foreground = labels < num_classes
    return foreground, torch.where(foreground, labels, 0).unsqueeze(1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
