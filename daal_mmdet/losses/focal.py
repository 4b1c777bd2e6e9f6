"""The task terms of DAAL: focal losses for every kind of target a head may pass.

All of them return loss sums or elements that are *not* averaged, computed in float32
at least. Reduction is the caller's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from daal_mmdet.losses import focal_triton

__all__ = [
    'probability_focal_elements',
    'quality_focal_elements',
    'sigmoid_focal_elements',
    'sigmoid_focal_sum',
    'softmax_focal_rows',
    'softmax_focal_soft_rows',
]

# Elements per row block on a CPU: three float32 temporaries of it stay in cache.
_BLOCK = 1 << 17
_PROBABILITY_EPS = 1e-12


def sigmoid_focal_sum(
    logits: Tensor,
    labels: Tensor,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    row_weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Weighted sum of the sigmoid focal loss over all rows and classes.

    ::

        sum_i w_i [ a v_y (1 - p_iy)^gamma * -log p_iy              (if y_i < C)
                    + sum_{c != y_i} (1 - a) p_ic^gamma * -log(1 - p_ic) ]

    with p = sigmoid(logits), a = alpha and v = pos_weight (T.-Y. Lin et al., "Focal
    loss for dense object detection", ICCV 2017, eq. 5).

    Value and gradient come from one pass over blocks of rows: the negative term for
    every entry, then a correction of the one positive entry a foreground row has. No
    one-hot matrix is built and no N x C tensor is kept but the gradient. On a GPU one
    Triton kernel does it, where Triton is there.

    Args:
        logits: (N, C), floating point.
        labels: (N,), int64 in 0..C; C is background.
        gamma: Focusing exponent, >= 0.
        alpha: Share of the positive term in [0, 1]; None leaves both terms at 1.
        row_weight: w, (N,). Not differentiated.
        pos_weight: v, (C,), multiplies the positive term. Not differentiated.

    Returns:
        A scalar; 0 for N = 0. NaN or infinite where a logit is.

    Raises:
        RuntimeError: When differentiated twice.
    """
    total: Tensor = _SigmoidFocalSum.apply(
        logits, labels, gamma, alpha, row_weight, pos_weight
    )
    return total


class _SigmoidFocalSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        gamma: float,
        alpha: float | None,
        row_weight: Tensor | None,
        pos_weight: Tensor | None,
    ) -> Tensor:
        if focal_triton.usable(logits):
            total, grad = focal_triton.sigmoid_focal(
                logits, labels, gamma, alpha, row_weight, pos_weight
            )
            ctx.save_for_backward(grad)
            return total
        num_rows, num_classes = logits.shape
        positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        grad = torch.empty(logits.shape, dtype=dtype, device=logits.device)
        total = grad.new_zeros(())
        block = num_rows
        if logits.device.type == 'cpu':
            block = max(1, _BLOCK // max(num_classes, 1))
        for start in range(0, num_rows, max(block, 1)):
            rows = slice(start, start + block)
            y, g = labels[rows], grad[rows]
            w = None if row_weight is None else row_weight[rows].to(dtype)
            s = logits[rows].to(dtype)
            loss = _negative_focal(s, gamma, g)
            if negative != 1.0:
                loss *= negative
                g *= negative

            # A background row "corrects" its class 0 by nothing.
            foreground = y < num_classes
            column = torch.where(foreground, y, 0).unsqueeze(1)
            s_y = s.gather(1, column)
            g_pos = torch.empty_like(s_y)
            # The positive term of s is the negative term of -s.
            loss_pos = _negative_focal(-s_y, gamma, g_pos)
            scale: Tensor | float = positive
            if pos_weight is not None:
                scale = positive * pos_weight.to(dtype)[column]
            is_pos = foreground.unsqueeze(1)
            loss_y, g_y = loss.gather(1, column), g.gather(1, column)
            loss.scatter_(1, column, torch.where(is_pos, scale * loss_pos, loss_y))
            g.scatter_(1, column, torch.where(is_pos, -scale * g_pos, g_y))

            if w is None:
                total += loss.sum()
            else:
                total += torch.dot(loss.sum(dim=1), w)
                g *= w.unsqueeze(1)
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        # Gradients are only enabled here under create_graph=True. The saved gradient
        # has no graph, so that a second derivative would silently lack its terms.
        if torch.is_grad_enabled():
            raise RuntimeError(
                'the focal loss of hard labels can not be differentiated twice; pass '
                'one-hot targets, whose loss can'
            )
        (grad,) = ctx.saved_tensors
        return grad * grad_total, None, None, None, None, None


def _negative_focal(s: Tensor, gamma: float, grad: Tensor) -> Tensor:
    """p^gamma * softplus(s); its derivative by s is written to ``grad``.

    d/ds = p^gamma * (gamma (1 - p) softplus(s) + p)
    """
    p = torch.sigmoid(s)
    # softplus(s) = -log(1 - p), without the cancellation.
    loss = F.softplus(s)
    if gamma == 0:
        grad.copy_(p)
        return loss
    torch.sub(1, p, out=grad)
    grad *= loss
    grad *= gamma
    grad += p
    modulator = p.square_() if gamma == 2 else p.pow_(gamma)
    loss *= modulator
    grad *= modulator
    return loss


def sigmoid_focal_elements(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 2.0,
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
        gamma: Focusing exponent, >= 0.
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
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """:func:`sigmoid_focal_elements` for input that went through a sigmoid already.

    As in PyTorch's ``binary_cross_entropy`` a logarithm is clamped at -100, so that a
    probability of exactly 0 or 1 gives a finite loss.

    Args:
        probabilities: (N, C), in [0, 1].
        targets: (N, C), in [0, 1].
        gamma: Focusing exponent, >= 0.
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
    beta: float = 2.0,
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
        beta: Exponent, >= 0.
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
    gamma: float = 0.0,
    alpha: float | None = None,
) -> Tensor:
    """Focal cross entropy of every row: -alpha_t (1 - p_t)^gamma log p_t.

    Args:
        log_probabilities: (N, C + 1), background last.
        labels: (N,), int64 in 0..C; C is background.
        gamma: Focusing exponent, >= 0; 0 is plain cross entropy.
        alpha: Weight of foreground rows in [0, 1], background rows get 1 - alpha; None
            leaves both at 1.

    Returns:
        (N,).
    """
    loss = F.nll_loss(log_probabilities, labels, reduction='none')
    if gamma != 0:
        # 1 - p_t, exact where p_t is close to 1.
        loss = loss * _power(-torch.expm1(-loss), gamma)
    if alpha is not None:
        background = labels == log_probabilities.shape[1] - 1
        loss = loss * torch.where(background, 1 - alpha, alpha)
    return loss


def softmax_focal_soft_rows(
    log_probabilities: Tensor,
    targets: Tensor,
    gamma: float = 0.0,
    alpha: float | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Focal cross entropy of every row for a target distribution.

    -sum_c t_c v_c alpha_c (1 - p_c)^gamma log p_c.

    Args:
        log_probabilities: (N, C + 1), background last.
        targets: (N, C + 1), >= 0, rows that sum to 1.
        gamma: Focusing exponent, >= 0.
        alpha: Weight of foreground classes in [0, 1], background gets 1 - alpha; None
            leaves both at 1.
        class_weight: v, (C + 1,).

    Returns:
        (N,).
    """
    loss = -targets.to(log_probabilities.dtype) * log_probabilities
    if gamma != 0:
        loss = loss * _power(-torch.expm1(log_probabilities), gamma)
    if alpha is not None:
        scale = torch.full_like(loss[:1], alpha)
        scale[:, -1] = 1 - alpha
        loss = loss * scale
    if class_weight is not None:
        loss = loss * class_weight
    return loss.sum(dim=1)


def _modulate(
    bce: Tensor, p: Tensor, targets: Tensor, gamma: float, alpha: float | None
) -> Tensor:
    if gamma != 0:
        bce = bce * _power((1 - p) * targets + p * (1 - targets), gamma)
    if alpha is not None:
        bce = bce * (alpha * targets + (1 - alpha) * (1 - targets))
    return bce


def _power(distance: Tensor, exponent: float) -> Tensor:
    if exponent == 2:
        return distance.square()
    if exponent < 1:
        # The derivative of d^g is infinite at d = 0 for 0 < g < 1.
        distance = distance.clamp(min=_PROBABILITY_EPS)
    return distance.pow(exponent)


def _label_columns(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Foreground mask (N,) and a column to scatter to (N, 1), 0 for background."""
    foreground = labels < num_classes
    return foreground, torch.where(foreground, labels, 0).unsqueeze(1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
