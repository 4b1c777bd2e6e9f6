"""Sums of the focal losses, whose gradient comes from the pass that computes the value.

Blocks of rows go through in turn, so that what is computed on the way stays in a CPU's
cache and no N x C tensor is kept but the gradient. The sums are *not* averaged, and are
computed in float32 at least. Targets and weights are not differentiated, and neither is
the gradient: :mod:`daal_mmdet.losses.focal` has losses of every entry that can be.

Each function also hands out rows of the logits that another loss is computed from. What
comes back for them is added to the one gradient there is; autograd by itself would make
another N x C tensor, of zeros but for these rows, and add the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from daal_mmdet.losses import focal_triton

__all__ = [
    'FocalSum',
    'sigmoid_focal_soft_sum',
    'sigmoid_focal_sum',
    'softmax_focal_soft_sum',
    'softmax_focal_sum',
]

# A sum, and the function that gives its gradient times a scalar, once.
Evaluate = Callable[..., tuple[Tensor, Callable[[Tensor], Tensor]]]

# Elements per row block on a CPU: three float32 temporaries of it stay in cache.
_BLOCK = 1 << 17
_PROBABILITY_EPS = 1e-12


class FocalSum(NamedTuple):
    """A loss and the rows that were asked for.

    Attributes:
        total: The sum, scalar.
        rows: ``logits[take]``, (K, columns); None where ``take`` is.
    """

    total: Tensor
    rows: Tensor | None


def sigmoid_focal_sum(
    logits: Tensor,
    labels: Tensor,
    gamma: float | Tensor = 2.0,
    alpha: float | None = 0.25,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    scores: Tensor | None = None,
    take: Tensor | None = None,
) -> FocalSum:
    """Weighted sum of the sigmoid focal loss over all rows and classes.

    ::

        sum_i w_i [ a v_y (1 - p_iy)^gamma_y * -log p_iy              (if y_i < C)
                    + sum_{c != y_i} (1 - a) p_ic^gamma_c * -log(1 - p_ic) ]

    with p = sigmoid(logits), a = alpha and v = pos_weight (T.-Y. Lin et al., "Focal
    loss for dense object detection", ICCV 2017, eq. 5). With ``scores`` t the first
    term is v_y |t_i - p_iy|^gamma_y * BCE(p_iy, t_i), that of the quality focal loss
    (X. Li et al., "Generalized focal loss", NeurIPS 2020, eq. 4).

    The negative term is computed for every entry, then the one positive entry that a
    foreground row has is corrected; no one-hot matrix is built. On a GPU one Triton
    kernel does it, where Triton is there, for rows that are weighed whole.

    Args:
        logits: (N, C), floating point.
        labels: (N,), int64 in 0..C; C is background.
        gamma: Focusing exponent, >= 0; or one for each class, (C,).
        alpha: Share of the positive term in [0, 1]; None leaves both terms at 1, as
            quality focal loss does.
        weight: w, (N,), or weights of every entry, (N, C).
        pos_weight: v, (C,), multiplies the positive term.
        scores: t, (N,), quality in [0, 1], read where a row is foreground.
        take: (K,), int64, rows of the logits to hand out; None for none.

    Returns:
        The sum, 0 for N = 0, and the rows. NaN or infinite where a logit is.

    Raises:
        RuntimeError: When differentiated twice.
    """
    evaluate: Evaluate = _sigmoid
    whole_rows = scores is None and (weight is None or weight.dim() == 1)
    if whole_rows and focal_triton.usable(logits):
        evaluate = focal_triton.sigmoid_focal
    elif scores is not None:
        evaluate = partial(_sigmoid, scores=scores)
    return _sum(logits, take, evaluate, labels, gamma, alpha, weight, pos_weight)


def sigmoid_focal_soft_sum(
    logits: Tensor,
    targets: Tensor,
    gamma: float | Tensor = 2.0,
    alpha: float | None = 0.25,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    take: Tensor | None = None,
) -> FocalSum:
    """Weighted sum of :func:`daal_mmdet.losses.focal.sigmoid_focal_elements`.

    Args:
        logits: (N, C), floating point.
        targets: (N, C), one-hot or soft, in [0, 1].
        gamma: Focusing exponent, >= 0; or one for each class, (C,).
        alpha: Share of the positive term in [0, 1]; None leaves both terms at 1.
        weight: (N,), or weights of every entry, (N, C).
        pos_weight: v, (C,), multiplies the positive term.
        take: (K,), int64, rows of the logits to hand out; None for none.

    Returns:
        The sum, 0 for N = 0, and the rows. NaN or infinite where a logit is.

    Raises:
        RuntimeError: When differentiated twice.
    """
    return _sum(logits, take, _sigmoid_soft, targets, gamma, alpha, weight, pos_weight)


def softmax_focal_sum(
    logits: Tensor,
    labels: Tensor,
    gamma: float | Tensor = 0.0,
    alpha: float | None = None,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    take: Tensor | None = None,
) -> FocalSum:
    """Weighted sum of the focal cross entropy over all rows.

    ::

        sum_i w_i v_y alpha_y (1 - p_iy)^gamma_y * -log p_iy

    Args:
        logits: (N, C + 1), floating point, background last.
        labels: (N,), int64 in 0..C; C is background.
        gamma: Focusing exponent, >= 0, 0 is plain cross entropy; or one for each
            class, (C + 1,).
        alpha: Weight of foreground rows in [0, 1], background rows get 1 - alpha; None
            leaves both at 1.
        weight: w, (N,).
        class_weight: v, (C + 1,).
        take: (K,), int64, rows of the logits to hand out; None for none.

    Returns:
        The sum, 0 for N = 0, and the rows.

    Raises:
        RuntimeError: When differentiated twice.
    """
    return _sum(logits, take, _softmax, labels, gamma, alpha, weight, class_weight)


def softmax_focal_soft_sum(
    logits: Tensor,
    targets: Tensor,
    gamma: float | Tensor = 0.0,
    alpha: float | None = None,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    take: Tensor | None = None,
) -> FocalSum:
    """Weighted sum of the focal cross entropy over rows with a target distribution.

    See :func:`daal_mmdet.losses.focal.softmax_focal_soft_rows`.

    Args:
        logits: (N, C + 1), floating point, background last.
        targets: (N, C + 1), >= 0, rows that sum to 1.
        gamma: Focusing exponent, >= 0; or one for each class, (C + 1,).
        alpha: Weight of foreground classes in [0, 1], background gets 1 - alpha; None
            leaves both at 1.
        weight: (N,).
        class_weight: (C + 1,).
        take: (K,), int64, rows of the logits to hand out; None for none.

    Returns:
        The sum, 0 for N = 0, and the rows.

    Raises:
        RuntimeError: When differentiated twice.
    """
    options = gamma, alpha, weight, class_weight
    return _sum(logits, take, _softmax_soft, targets, *options)


def _sum(
    logits: Tensor, take: Tensor | None, evaluate: Evaluate, *target_and_options: Any
) -> FocalSum:
    return FocalSum(*_Fused.apply(logits, take, evaluate, *target_and_options))


class _Fused(torch.autograd.Function):
    """A sum with the gradient that ``evaluate(logits, *rest)`` finds, and rows."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, take: Tensor | None, evaluate: Evaluate, *rest: Any
    ) -> tuple[Tensor, Tensor | None]:
        total, ctx.gradient = evaluate(logits, *rest)
        ctx.evaluate, ctx.rest = evaluate, rest
        ctx.save_for_backward(logits, take)
        # No zeros for an output that no loss came from.
        ctx.set_materialize_grads(False)
        return total, None if take is None else logits[take]

    @staticmethod
    def backward(
        ctx: Any, grad_total: Tensor | None, grad_rows: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        # Gradients are only enabled here under create_graph=True. The saved gradient
        # has no graph, so that a second derivative would silently lack its terms.
        if torch.is_grad_enabled():
            raise RuntimeError(
                'the sum of a focal loss can not be differentiated twice; take '
                "reduction='none' and add its entries up, which can"
            )
        logits, take = ctx.saved_tensors
        if grad_total is None:
            grad = torch.zeros_like(logits)
        else:
            # Scaled in place: another N x C tensor would take a third of the time. So
            # a second pass through a retained graph has to compute it again.
            gradient, ctx.gradient = ctx.gradient, None
            if gradient is None:
                _, gradient = ctx.evaluate(logits, *ctx.rest)
            grad = gradient(grad_total)
        if grad_rows is not None:
            grad.index_add_(0, take, grad_rows.to(grad.dtype))
        return grad, *[None] * (2 + len(ctx.rest))


def _sigmoid(
    logits: Tensor,
    labels: Tensor,
    gamma: float | Tensor,
    alpha: float | None,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    scores: Tensor | None = None,
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
    C = logits.shape[1]
    total, grad = _start(logits)
    for rows in _blocks(logits):
        y, g = labels[rows], grad[rows]
        s = logits[rows].to(grad.dtype)
        w = None if weight is None else weight[rows].to(grad.dtype)
        if w is not None and w.dim() == 1:
            w = w.unsqueeze(1)
        loss = _negative(s, gamma, g, negative if w is None else negative * w)

        # Where a row is positive. A background row "corrects" its class 0 by nothing;
        # on a CPU, where finding them waits for nothing, the others are left out.
        at = torch.arange(len(y), device=y.device)
        if s.device.type == 'cpu':
            at = (y < C).nonzero().squeeze(1)
        foreground = y[at] < C
        column = torch.where(foreground, y[at], 0)
        s_y = s[at, column]
        gamma_y = gamma[column] if isinstance(gamma, Tensor) else gamma
        scale: Tensor | float = positive
        if pos_weight is not None:
            scale = positive * pos_weight.to(grad.dtype)[column]
        if w is not None:
            scale = scale * (w[at, 0] if w.shape[1] == 1 else w[at, column])
        if scores is None:
            # The positive term of s is the negative term of -s.
            g_y = torch.empty_like(s_y)
            loss_y = _negative(-s_y, gamma_y, g_y, scale)
            g_y = -g_y
        else:
            t = torch.where(foreground, scores[rows][at], 0.0)
            loss_y, g_y = (scale * x for x in _quality(s_y, t.to(s.dtype), gamma_y))
        for entries, entry in ((loss, loss_y), (g, g_y)):
            entries[at, column] = torch.where(foreground, entry, entries[at, column])
        total += loss.sum()
    return total, grad.mul_


def _sigmoid_soft(
    logits: Tensor,
    targets: Tensor,
    gamma: float | Tensor,
    alpha: float | None,
    weight: Tensor | None,
    pos_weight: Tensor | None,
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    total, grad = _start(logits)
    v = None if pos_weight is None else pos_weight.to(grad.dtype)
    for rows in _blocks(logits):
        s, t = logits[rows].to(grad.dtype), targets[rows].to(grad.dtype)
        p = torch.sigmoid(s)
        loss = F.binary_cross_entropy_with_logits(s, t, reduction='none', pos_weight=v)
        # d BCE / ds = p (1 + (v - 1) t) - v t
        slope = p - t if v is None else torch.addcmul(p, (v - 1) * t, p) - v * t
        if isinstance(gamma, Tensor) or gamma != 0:
            sign = 1 - 2 * t
            power, power_slope = _power(torch.addcmul(t, sign, p), gamma)
            slope *= power
            slope += power_slope * sign * p * (1 - p) * loss
            loss *= power
        if alpha is not None:
            share = (1 - alpha) + (2 * alpha - 1) * t
            loss *= share
            slope *= share
        grad[rows] = slope
        total += _weigh(loss, grad[rows], weight, rows)
    return total, grad.mul_


def _softmax(
    logits: Tensor,
    labels: Tensor,
    gamma: float | Tensor,
    alpha: float | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    p, y = torch.softmax(logits, dim=1, dtype=dtype), labels.unsqueeze(1)
    # log p_y through the largest entry, whose probability does not underflow: another
    # N x C pass of logarithms is saved.
    above = logits.gather(1, y).to(dtype) - logits.amax(1, keepdim=True).to(dtype)
    log_p_y = above + p.amax(1, keepdim=True).log()
    gamma_y = gamma[y] if isinstance(gamma, Tensor) else gamma
    loss, slope = _cross_entropy(log_p_y, gamma_y)
    scale = _class_scale(p, alpha, class_weight)
    if scale is not None:
        loss, slope = loss * scale[y], slope * scale[y]
    if weight is not None:
        w = weight.to(dtype).unsqueeze(1)
        loss, slope = loss * w, slope * w

    def gradient(grad_total: Tensor) -> Tensor:
        # d log p_y / ds = onehot - p
        by_row = grad_total * slope
        return p.mul_(-by_row).scatter_add_(1, y, by_row)

    return loss.sum(), gradient


def _softmax_soft(
    logits: Tensor,
    targets: Tensor,
    gamma: float | Tensor,
    alpha: float | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    total, grad = _start(logits)
    scale = _class_scale(grad, alpha, class_weight)
    for rows in _blocks(logits):
        log_p = F.log_softmax(logits[rows], dim=1, dtype=grad.dtype)
        loss, slope = _cross_entropy(log_p, gamma)
        share = targets[rows].to(grad.dtype)
        if scale is not None:
            share = share * scale
        if weight is not None:
            share = share * weight[rows].to(grad.dtype).unsqueeze(1)
        total += (loss * share).sum()
        slope = slope * share
        grad[rows] = slope - log_p.exp_() * slope.sum(dim=1, keepdim=True)
    return total, grad.mul_


def _start(logits: Tensor) -> tuple[Tensor, Tensor]:
    """A sum of nothing, and room for the gradient."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    grad = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    return grad.new_zeros(()), grad


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Rows that go through at once: all, except on a CPU."""
    num_rows, num_columns = logits.shape
    size = max(num_rows, 1)
    if logits.device.type == 'cpu':
        size = max(1, _BLOCK // max(num_columns, 1))
    for start in range(0, num_rows, size):
        yield slice(start, start + size)


def _weigh(loss: Tensor, grad: Tensor, weight: Tensor | None, rows: slice) -> Tensor:
    """Weighted sum of a block's entries; ``grad`` is weighed in place."""
    if weight is None:
        return loss.sum()
    w = weight[rows].to(loss.dtype)
    if w.dim() == 2:
        grad *= w
        return (loss * w).sum()
    grad *= w.unsqueeze(1)
    return torch.dot(loss.sum(dim=1), w)


def _negative(
    s: Tensor, gamma: float | Tensor, grad: Tensor, scale: float | Tensor
) -> Tensor:
    """p^gamma * softplus(s) * scale; its derivative by s is written to ``grad``.

    d/ds = p^gamma * (gamma (1 - p) softplus(s) + p) * scale
    """
    p = torch.sigmoid(s)
    # softplus(s) = -log(1 - p), without the cancellation.
    loss = F.softplus(s)
    if not isinstance(gamma, Tensor) and gamma == 0:
        torch.mul(p, scale, out=grad)
        loss *= scale
        return loss
    torch.sub(1, p, out=grad)
    grad *= loss
    if isinstance(gamma, Tensor):
        grad *= gamma
        grad += p
        modulator = p.pow_(gamma)
    else:
        torch.add(p, grad, alpha=gamma, out=grad)
        modulator = p.square_() if gamma == 2 else p.pow_(gamma)
    if isinstance(scale, Tensor) or scale != 1:
        modulator *= scale
    loss *= modulator
    grad *= modulator
    return loss


def _quality(s: Tensor, t: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    """|t - p|^beta * BCE(p, t), and its derivative by s."""
    p = torch.sigmoid(s)
    bce = F.binary_cross_entropy_with_logits(s, t, reduction='none')
    if not isinstance(beta, Tensor) and beta == 0:
        return bce, p - t
    power, slope = _power((p - t).abs(), beta)
    grad = slope * (p - t).sign() * p * (1 - p) * bce + power * (p - t)
    return power * bce, grad


def _cross_entropy(log_p: Tensor, gamma: float | Tensor) -> tuple[Tensor, Tensor]:
    """-(1 - p)^gamma log p, and its derivative by log p."""
    if not isinstance(gamma, Tensor) and gamma == 0:
        return -log_p, torch.full_like(log_p, -1.0)
    # 1 - p, exact where p is close to 1.
    power, slope = _power(-torch.expm1(log_p), gamma)
    return -power * log_p, slope * log_p.exp() * log_p - power


def _power(distance: Tensor, exponent: float | Tensor) -> tuple[Tensor, Tensor]:
    """d^g, and its derivative by d."""
    if not isinstance(exponent, Tensor) and exponent == 2:
        return distance.square(), 2 * distance
    # The derivative is infinite at d = 0 for g < 1.
    distance = distance.clamp(min=_PROBABILITY_EPS)
    return distance.pow(exponent), exponent * distance.pow(exponent - 1)


def _class_scale(
    grad: Tensor, alpha: float | None, class_weight: Tensor | None
) -> Tensor | None:
    """Weights of the columns, (C + 1,)."""
    scale = None if class_weight is None else class_weight.to(grad.dtype)
    if alpha is None:
        return scale
    shares = grad.new_full(grad.shape[1:], alpha)
    shares[-1:] = 1 - alpha
    return shares if scale is None else shares * scale
