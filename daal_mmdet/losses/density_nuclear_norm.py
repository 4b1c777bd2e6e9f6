"""Nuclear-norm maximization on density maps."""

from __future__ import annotations

import torch
from torch import Tensor

from daal_mmdet.nuclear_norm import METHODS, nuclear_norm
from daal_mmdet.validation import check_choice, check_number

__all__ = ['KINDS', 'density_nuclear_norm_loss']

KINDS = ('ratio', 'raw')


def density_nuclear_norm_loss(
    density: Tensor,
    mask: Tensor | None = None,
    kind: str = 'ratio',
    method: str = 'auto',
    min_norm: float = 0.1,
) -> Tensor:
    """Mean over maps of what falls as the nuclear norm of a density map D rises.

    ::

        'ratio'   s (1 - ||D||_* / (sqrt(min(H, W)) ||D||_F)),   s = min(1, ||D||_F / m)
        'raw'     -||D||_*

    Liu et al. (IET Image Processing 17(2), 2023) add the norm of BNM (Cui et al., CVPR
    2020), which is made for class probabilities. A density map has no bound, so with
    'raw' the loss falls for ever as the map, and with it the count, grows: the drift
    in the paper's own figure. 'ratio' is ours. The ratio is in (0, 1] by ||D||_* <=
    sqrt(rank) ||D||_F, largest where all singular values agree, and is not changed by
    scaling D: its gradient is orthogonal to D and so can't inflate the map. That
    gradient grows like 1 / ||D||_F; the factor s, which is *detached*, keeps it below
    1 / m for maps that are almost empty.

    Args:
        density: D, (B, H, W), heads a cell.
        mask: (B, H, W), 1 on a rectangle of cells that count, in which H and W are
            taken, and 0 elsewhere; None for all.
        kind: 'ratio' or 'raw'.
        method: See :func:`~daal_mmdet.nuclear_norm.nuclear_norm`.
        min_norm: m, in heads, > 0; of 'ratio' only. About the norm of a single head
            with a Gaussian of three cells.

    Returns:
        A scalar in float32 at least; 0 with a zero gradient for no maps and no cells,
        and for 'ratio' for maps of zeros.

    Raises:
        TypeError, ValueError: If an argument is out of its range or a shape does not
            fit.
    """
    check_choice('kind', kind, KINDS)
    check_choice('method', method, METHODS)
    check_number('min_norm', min_norm, above=0)
    if density.dim() != 3:
        raise ValueError(f'density: expected (B, H, W), got {tuple(density.shape)}')
    if density.dtype != torch.float64:
        density = density.float()
    if mask is None:
        mask = torch.ones_like(density)
    elif mask.shape != density.shape:
        raise ValueError(
            f'mask: expected shape {tuple(density.shape)}, got {tuple(mask.shape)}'
        )
    if density.numel() == 0:
        return density.sum()
    inside = mask > 0
    density = torch.where(inside, density, 0.0)
    norm = nuclear_norm(density, method)
    if kind == 'raw':
        return -norm.mean()
    rows, columns = (inside.any(dim).sum(-1) for dim in (-1, -2))
    rank = torch.minimum(rows, columns).clamp(min=1).to(norm.dtype)
    frobenius = torch.linalg.vector_norm(density, dim=(-2, -1))
    ratio = norm / (rank.sqrt() * torch.where(frobenius > 0, frobenius, 1.0))
    damping = (frobenius.detach() / min_norm).clamp(max=1)
    return (damping * (1 - ratio)).mean()
