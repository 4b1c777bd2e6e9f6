"""How well a linear-Gaussian model explains a series: the innovation likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from daal_mmdet import kalman
from daal_mmdet.losses.least_noise import least_noise

__all__ = ['innovation_nll']

# Variance of the state before the first measurement, for data of about unit scale.
_DIFFUSE = 1e6


def innovation_nll(
    series: Tensor,
    valid: Tensor,
    F: Tensor,
    H: Tensor,
    Q: Tensor,
    R: Tensor,
    drift: Tensor | None = None,
    reduction: str = 'mean',
) -> Tensor:
    """Negative log-likelihood of measurements under the filter that predicts them.

    The prediction error decomposition (F. C. Schweppe 1965; A. C. Harvey, "Forecasting,
    structural time series models and the Kalman filter", 1989, section 3.4)::

        NLL = sum_k 1/2 (log det S_k + d_k^T S_k^-1 d_k + m log 2 pi)

    with innovations d_k = z_k - H x'_k and their covariances S_k from the filter run on
    the measurements themselves. Each sequence starts diffuse (x = 0, P = 1e6 I), so its
    first n steps, which fix the state, do not count. Computed in float64: a diffuse
    start leaves float32 no digits for the noise.

    Args:
        series: z, (B, T, m).
        valid: (B, T), bool; other steps are padding and left out altogether.
        F: (..., n, n), where ... broadcasts with B.
        H: (..., m, n).
        Q: (..., n, n).
        R: (..., m, m).
        drift: B u, (B, T, n).
        reduction: 'sum', or 'mean' over the entries (steps times m) that count.

    Returns:
        A scalar, differentiable in all floating arguments; 0 if no step counts.
    """
    F, H, Q, R = F.double(), H.double(), Q.double(), R.double()
    batch, steps, m = series.shape
    n = F.shape[-1]
    # Padding is chosen away before the arithmetic: 0 * NaN would poison the gradient.
    z = torch.where(valid[..., None], series.double(), 0.0)
    if drift is not None:
        drift = torch.where(valid[..., None], drift.double(), 0.0)
    counts = valid & (valid.cumsum(1) > n)
    x = z.new_zeros(batch, n)
    P = _DIFFUSE * torch.eye(n, dtype=z.dtype, device=z.device).expand(batch, n, n)
    largest = P
    # The products keep the graph of F, H, Q and R where there is no step at all.
    total = 0.0 * (F.sum() + H.sum() + Q.sum() + R.sum())
    for t in range(steps):
        prior = kalman.predict(x, P, F, Q)
        mean = prior.mean if drift is None else prior.mean + drift[:, t]
        # Errors of a large P outlive it: the next one may be smaller than they are.
        largest = torch.maximum(largest, prior.covariance.detach().abs())
        noise = R + least_noise(H, largest, P.dtype)
        step = kalman.update(mean, prior.covariance, z[:, t], H, noise)
        nll = _gaussian_nll(step.innovation, step.innovation_covariance)
        total = total + torch.where(counts[:, t], nll, 0.0).sum()
        moved = valid[:, t]
        x = torch.where(moved[:, None], step.mean, x)
        P = torch.where(moved[:, None, None], step.covariance, P)
    if reduction == 'sum':
        return total
    return total / (counts.sum() * m).clamp(min=1)


def _gaussian_nll(d: Tensor, S: Tensor) -> Tensor:
    """-log N(d; 0, S) for (..., m) and (..., m, m)."""
    factor, _ = torch.linalg.cholesky_ex(S)
    white = torch.linalg.solve_triangular(factor, d[..., None], upper=False)[..., 0]
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (
        white.square().sum(-1) + log_det + d.shape[-1] * math.log(2 * math.pi)
    )
