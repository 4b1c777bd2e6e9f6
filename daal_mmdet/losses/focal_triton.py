"""The sigmoid focal loss of hard labels as one Triton kernel, for GPUs.

Triton comes with PyTorch's CUDA builds. Where it is missing, or its compiler does not
start, :mod:`daal_mmdet.losses.fused_focal` does the same with PyTorch operators.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

__all__ = ['sigmoid_focal', 'usable']

_ENTRIES = 2048
_MOST_COLUMNS = 128


def usable(logits: Tensor) -> bool:
    """Whether the kernel can take these logits.

    Under ``torch.compile`` it is not asked: Inductor fuses the operators by itself.
    """
    return (
        triton is not None
        and logits.device.type == 'cuda'
        and logits.dtype != torch.float64
        and not torch.compiler.is_compiling()
        and _compiles(logits.get_device())
    )


def sigmoid_focal(
    logits: Tensor,
    labels: Tensor,
    gamma: float | Tensor,
    alpha: float | None,
    row_weight: Tensor | None,
    pos_weight: Tensor | None,
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Value and gradient of :func:`daal_mmdet.losses.fused_focal.sigmoid_focal_sum`.

    Each program takes a tile of rows and columns, reads every logit once, and writes
    its gradient and one partial sum. Sums are added in a fixed order.

    Args:
        logits: (N, C), float32, float16 or bfloat16.
        labels: (N,), int64 in 0..C; C is background.
        gamma: Focusing exponent, >= 0, which compiles a kernel for each value; or one
            for each class, (C,), for which one kernel does.
        alpha: Share of the positive term in [0, 1]; None leaves both terms at 1.
        row_weight: (N,).
        pos_weight: (C,).

    Returns:
        The loss, a scalar, and the function that scales its gradient, (N, C), in place
        and returns it, both float32.
    """
    num_rows, num_classes = logits.shape
    grad = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    if grad.numel() == 0:
        return grad.sum(), grad.mul_
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
    width = min(_MOST_COLUMNS, triton.next_power_of_2(num_classes))
    height = _ENTRIES // width
    grid = (triton.cdiv(num_rows, height), triton.cdiv(num_classes, width))
    sums = grad.new_empty(grid)
    gammas = gamma.contiguous() if isinstance(gamma, Tensor) else None
    # Triton starts kernels on the current device; -1, a CPU's, changes nothing.
    with torch.cuda.device(logits.get_device()):
        _sigmoid_focal_kernel[grid](
            logits,
            labels.contiguous(),
            # Not read where there is none.
            grad if row_weight is None else row_weight.contiguous(),
            grad if pos_weight is None else pos_weight.contiguous(),
            grad if gammas is None else gammas,
            grad,
            sums,
            num_rows,
            num_classes,
            logits.stride(0),
            logits.stride(1),
            positive,
            negative,
            GAMMA=0.0 if gammas is not None else float(gamma),
            GAMMAS=gammas is not None,
            WEIGHTED=row_weight is not None,
            BALANCED=pos_weight is not None,
            HEIGHT=height,
            WIDTH=width,
        )
    return sums.sum(), grad.mul_


@functools.cache
def _compiles(device: int) -> bool:
    """Whether the kernel starts on a GPU; it needs a C compiler, for one."""
    logits = torch.zeros(1, 1, device=f'cuda:{device}')
    labels = torch.zeros(1, dtype=torch.int64, device=logits.device)
    try:
        sigmoid_focal(logits, labels, 2.0, 0.25, None, None)
    # Triton promises no type for what goes wrong while it compiles.
    except Exception as error:
        warnings.warn(
            'Triton can not compile the focal loss, PyTorch operators take its place: '
            f'{error}',
            stacklevel=2,
        )
        return False
    return True


if triton is not None:

    @triton.jit
    def _sigmoid_focal_kernel(
        logits,
        labels,
        row_weight,
        pos_weight,
        gammas,
        grad,
        sums,
        num_rows,
        num_classes,
        row_stride,
        column_stride,
        positive,
        negative,
        GAMMA: tl.constexpr,
        GAMMAS: tl.constexpr,
        WEIGHTED: tl.constexpr,
        BALANCED: tl.constexpr,
        HEIGHT: tl.constexpr,
        WIDTH: tl.constexpr,
    ):
        # int64, for more than 2^31 entries.
        row = tl.program_id(0).to(tl.int64) * HEIGHT + tl.arange(0, HEIGHT)
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        in_row, in_column = row < num_rows, column < num_classes
        inside = in_row[:, None] & in_column[None, :]
        place = row[:, None] * row_stride + column[None, :] * column_stride
        s = tl.load(logits + place, mask=inside, other=0.0).to(tl.float32)
        label = tl.load(labels + row, mask=in_row, other=num_classes)
        hit = label[:, None] == column[None, :]
        scale = tl.where(hit, positive, negative)
        if BALANCED:
            v = tl.load(pos_weight + column, mask=in_column, other=1.0).to(tl.float32)
            scale = tl.where(hit, scale * v[None, :], scale)
        if WEIGHTED:
            w = tl.load(row_weight + row, mask=in_row, other=0.0).to(tl.float32)
            scale = scale * w[:, None]

        # The positive term of s is the negative term of -s: p^gamma softplus(s).
        s = tl.where(hit, -s, s)
        e = tl.exp(-tl.abs(s))
        # log(1 + e), by its series where 1 + e would round e away.
        series = e * (1.0 - e * (0.5 - e * (0.33333334 - e * 0.25)))
        log1p = tl.where(e < 0.015625, series, tl.log(1.0 + e))
        softplus = tl.where(s > 0, s, 0.0) + log1p
        p = tl.where(s > 0, 1.0, e) / (1.0 + e)
        slope = p
        # log p = s - softplus(s) without its cancellation, and (1 - p) softplus(s).
        log_p = tl.where(s > 0, 0.0, s) - log1p
        rise = tl.where(s > 0, e, 1.0) / (1.0 + e) * softplus
        if GAMMAS:
            g = tl.load(gammas + column, mask=in_column, other=0.0).to(tl.float32)
            slope += g[None, :] * rise
            # An exponent of 0 and a p of 0 make 1, as elsewhere.
            power = tl.where(g[None, :] == 0.0, 0.0, g[None, :] * log_p)
            modulator = tl.exp(power)
        elif GAMMA == 0:
            modulator = tl.full((HEIGHT, WIDTH), 1.0, tl.float32)
        elif GAMMA == 2:
            slope += GAMMA * rise
            modulator = p * p
        else:
            slope += GAMMA * rise
            modulator = tl.exp(GAMMA * log_p)
        slope = tl.where(hit, -slope, slope) * modulator * scale
        loss = tl.where(inside, softplus * modulator * scale, 0.0)
        written = row[:, None] * num_classes + column[None, :]
        tl.store(grad + written, slope, mask=inside)
        tile = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(sums + tile, tl.sum(tl.sum(loss, axis=1), axis=0))
