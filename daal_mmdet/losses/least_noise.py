"""A measurement noise that rounding can not undo."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['least_noise']


@torch.no_grad()
def least_noise(H: Tensor, P: Tensor, digits: torch.dtype) -> Tensor:
    """What rounding may take from H P H^T, as a measurement noise covariance.

    R is positive definite, and so is S = H P H^T + R; but where R is smaller than the
    last digit of H P H^T, as with two sensors of the same thing that hardly err, S need
    not be. With this added to R it is.

    Args:
        H: (..., m, n).
        P: (..., n, n).
        digits: Type in which P was stored last.

    Returns:
        (..., m, m), float64, a multiple of the identity.
    """
    m, n = H.shape[-2:]
    H, P = H.double().abs(), P.double().abs()
    # The sum of the absolute terms bounds the rounding, whatever cancels in it.
    size = (H @ P @ H.mT).diagonal(dim1=-2, dim2=-1).amax(-1)
    scale = (m + n) / 2 * torch.finfo(digits).eps * size
    return scale[..., None, None] * torch.eye(m, dtype=scale.dtype, device=H.device)
