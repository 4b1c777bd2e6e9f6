"""What the losses over sequences share: shapes, masks, reductions, state."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

__all__ = [
    'as_matrix',
    'check_covariance',
    'check_mask',
    'check_sequence',
    'mean_state',
    'reduce_masked',
]


def as_matrix(
    name: str, value: object, rows: int | None, columns: int | None
) -> Tensor:
    """Read a constant matrix from a tensor, an array or the nested lists of a config.

    Args:
        name: Key to name in messages.
        value: What to read.
        rows: Their number, None for any.
        columns: Their number, None for any.

    Returns:
        A copy of its own, (rows, columns), float64 where ``value`` is a float64 tensor
        and float32 otherwise.

    Raises:
        TypeError: If ``value`` is no matrix of real numbers.
        ValueError: If its shape does not fit or it holds a non-finite value.
    """
    wide = isinstance(value, Tensor) and value.dtype == torch.float64
    try:
        matrix = torch.as_tensor(value, dtype=torch.float64 if wide else torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f'{name}: expected a matrix as nested lists, array or tensor, got {value!r}'
        ) from error
    fits = matrix.dim() == 2 and all(
        size == wanted if wanted is not None else size > 0
        for size, wanted in zip(matrix.shape, (rows, columns), strict=True)
    )
    if not fits:
        wanted = ', '.join('any' if n is None else str(n) for n in (rows, columns))
        raise ValueError(
            f'{name}: expected shape ({wanted}), got {tuple(matrix.shape)}'
        )
    if not torch.isfinite(matrix).all():
        raise ValueError(f'{name}: expected finite values, got {value!r}')
    return matrix.detach().clone()


def check_covariance(name: str, matrix: Tensor, definite: bool) -> None:
    """Raise ``ValueError`` unless a matrix is symmetric and positive (semi-)definite.

    Args:
        name: Key to name in the message.
        matrix: (n, n).
        definite: Whether eigenvalues must be > 0 instead of >= 0, up to rounding.
    """
    wanted = 'positive definite' if definite else 'positive semi-definite'
    exact = matrix.double()
    slack = 1e-6 * exact.abs().max()
    fits = bool((exact - exact.mT).abs().max() <= slack)
    if fits:
        smallest = torch.linalg.eigvalsh(exact)[0]
        fits = bool(smallest > 0) if definite else bool(smallest >= -slack)
    if not fits:
        raise ValueError(
            f'{name}: expected a symmetric {wanted} matrix, got {matrix.tolist()}'
        )


def check_sequence(
    name: str, tensor: Tensor, leading: tuple[int, ...], width: int
) -> None:
    """Raise ``ValueError`` unless a tensor has shape (*leading, width)."""
    if tuple(tensor.shape) != (*leading, width):
        raise ValueError(
            f'{name}: expected shape {(*leading, width)}, got {tuple(tensor.shape)}'
        )


def check_mask(mask: Tensor, leading: tuple[int, ...]) -> None:
    """Raise unless a mask is bool and has one entry for each step."""
    if mask.dtype != torch.bool:
        raise TypeError(f'mask: expected a bool tensor, got {mask.dtype}')
    if tuple(mask.shape) != leading:
        raise ValueError(f'mask: expected shape {leading}, got {tuple(mask.shape)}')


def reduce_masked(loss: Tensor, valid: Tensor, reduction: str) -> Tensor:
    """Reduce a loss whose padded entries are 0 already.

    Args:
        loss: (B, T, m).
        valid: (B, T) or (1, T), bool.
        reduction: 'none', 'sum', or 'mean' over the entries of valid steps.

    Returns:
        (B, T, m) for 'none', else a scalar; 0 that keeps the graph if nothing is valid.
    """
    if reduction == 'none':
        return loss
    if reduction == 'sum':
        return loss.sum()
    count = valid.expand(loss.shape[:2]).sum() * loss.shape[-1]
    return loss.sum() / count.clamp(min=1)


@torch.no_grad()
def mean_state(states: Tensor, use: Tensor, old: Tensor) -> Tensor:
    """Average a filter's state over sequences, and over the ranks of a distributed job.

    Args:
        states: (B, ...), a state for each sequence.
        use: (B,), bool, which sequences count: those with a step. Non-finite states
            never count.
        old: (...), the state to keep where no sequence counts.

    Returns:
        (...), float32 at least.
    """
    states = states.to(torch.promote_types(states.dtype, torch.float32))
    flat = states.flatten(1)
    use = use & torch.isfinite(flat).all(1)
    total = torch.where(use[:, None], flat, 0.0).sum(0)
    packed = torch.cat([total, use.sum().to(total)[None]])
    if get_world_size() > 1:
        all_reduce(packed)
    count = packed[-1]
    mean = (packed[:-1] / count.clamp(min=1)).view(old.shape)
    return torch.where(count > 0, mean, old.to(mean.dtype))
