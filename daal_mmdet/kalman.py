"""The linear Kalman filter as pure functions on tensors.

Predict::

    x' = F x + B u                  P' = F P F^T + Q

Update with a measurement z::

    S = H P' H^T + R                K = P' H^T S^-1
    x = x' + K (z - H x')           P = (I - K H) P' (I - K H)^T + K R K^T

(R. E. Kalman, 1960; the covariance update is Joseph's form, which stays symmetric
and positive semi-definite for any gain.)

Everything takes arbitrary leading batch dimensions, which broadcast, is
differentiable, and runs in float32 at least whatever ``torch.autocast`` says: a
covariance squares the scale of its data and leaves the range of half precision at
once. Nothing here synchronises with the host.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    'GaussianState',
    'KalmanUpdate',
    'adapt_measurement_noise',
    'level_trend_step',
    'predict',
    'scalar_update',
    'symmetrize',
    'update',
]


class GaussianState(NamedTuple):
    """Mean and covariance of a state.

    Attributes:
        mean: x, shape (..., n).
        covariance: P, shape (..., n, n).
    """

    mean: Tensor
    covariance: Tensor


class KalmanUpdate(NamedTuple):
    """What one measurement made of a predicted state.

    Attributes:
        mean: Updated x, shape (..., n).
        covariance: Updated P, shape (..., n, n).
        gain: K, shape (..., n, m).
        innovation: z - H x', shape (..., m).
        innovation_covariance: S, shape (..., m, m).
    """

    mean: Tensor
    covariance: Tensor
    gain: Tensor
    innovation: Tensor
    innovation_covariance: Tensor


def symmetrize(matrix: Tensor) -> Tensor:
    """(M + M^T) / 2 over the last two dimensions; removes rounding asymmetry."""
    return 0.5 * (matrix + matrix.mT)


def predict(
    x: Tensor,
    P: Tensor,
    F: Tensor,
    Q: Tensor,
    B: Tensor | None = None,
    u: Tensor | None = None,
) -> GaussianState:
    """Propagate a state by one step: x' = F x + B u, P' = F P F^T + Q.

    Args:
        x: State mean, (..., n).
        P: State covariance, (..., n, n), symmetric positive semi-definite.
        F: Transition, (..., n, n).
        Q: Process noise covariance, (..., n, n).
        B: Control matrix, (..., n, p). Goes with ``u``.
        u: Control input, (..., p). Goes with ``B``.

    Returns:
        The predicted mean and covariance, in float32 or, where an argument is,
        float64. Empty batches give empty results.

    Raises:
        ValueError: If a shape does not fit, or only one of ``B`` and ``u`` is given.
    """
    n = _state_size(x)
    _check_matrix('P', P, n, n)
    _check_matrix('F', F, n, n)
    _check_matrix('Q', Q, n, n)
    if (B is None) != (u is None):
        given, missing = ('B', 'u') if u is None else ('u', 'B')
        raise ValueError(f'B and u go together: {given} is given but {missing} is None')

    with _full_precision(x):
        x, P, F, Q = _promote(x, P, F, Q)
        mean = _apply(F, x)
        if B is not None and u is not None:
            _check_matrix('B', B, n, u.shape[-1])
            B, u = _promote(B, u)
            mean = mean + _apply(B, u)
        covariance = symmetrize(F @ P @ F.mT + Q)
    return GaussianState(mean, covariance)


def update(x: Tensor, P: Tensor, z: Tensor, H: Tensor, R: Tensor) -> KalmanUpdate:
    """Condition a predicted state on a measurement.

    The gain comes from a Cholesky solve. Where S is not positive definite the filter
    is not defined: there the gain, and all that follows from it, is NaN (raising
    would stall a GPU). With R positive definite this cannot happen.

    Args:
        x: Predicted mean, (..., n).
        P: Predicted covariance, (..., n, n).
        z: Measurement, (..., m).
        H: Measurement matrix, (..., m, n).
        R: Measurement noise covariance, (..., m, m).

    Returns:
        Updated mean and covariance, gain, innovation and its covariance, in float32
        or, where an argument is, float64. Empty batches give empty results.

    Raises:
        ValueError: If a shape does not fit.
    """
    n = _state_size(x)
    if z.dim() < 1:
        raise ValueError(f'z: expected shape (..., m), got {tuple(z.shape)}')
    m = z.shape[-1]
    _check_matrix('P', P, n, n)
    _check_matrix('H', H, m, n)
    _check_matrix('R', R, m, m)

    with _full_precision(x):
        x, P, z, H, R = _promote(x, P, z, H, R)
        HP = H @ P
        S = symmetrize(HP @ H.mT + R)
        K = _solve_spd(S, HP).mT
        innovation = z - _apply(H, x)
        mean = x + _apply(K, innovation)
        I_KH = torch.eye(n, dtype=P.dtype, device=P.device) - K @ H
        covariance = symmetrize(I_KH @ P @ I_KH.mT + K @ R @ K.mT)
    return KalmanUpdate(mean, covariance, K, innovation, S)


def scalar_update(
    x: Tensor, P: Tensor, z: Tensor, R: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Update independent scalar states (H = 1), elementwise.

    :func:`update` for n = m = 1 without the matrices::

        K = P / (P + R)     x = x + K (z - x)     P = (1 - K)^2 P + K^2 R

    P = R = 0 is a state known exactly that is measured exactly; it is left alone
    (K = 0). R = inf is a measurement without information and also gives K = 0.

    Args:
        x: Predicted means, any shape.
        P: Predicted variances, >= 0, broadcast with ``x``.
        z: Measurements, broadcast with ``x``; finite.
        R: Measurement variances, >= 0, broadcast with ``x``.

    Returns:
        Updated means, updated variances, and gains in [0, 1].
    """
    with _full_precision(x):
        x, P, z, R = _promote(x, P, z, R)
        S = P + R
        K = torch.where(S > 0, P / torch.where(S > 0, S, 1.0), 0.0)
        # inf * 0 is NaN, so an infinite R is taken out where the gain is 0.
        noise = torch.where(K > 0, K.square() * R, 0.0)
        return x + K * (z - x), (1 - K).square() * P + noise, K


def level_trend_step(
    mean: Tensor, P: Tensor, z: Tensor, R: Tensor, acceleration: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Predict a level and its trend by one step, and measure the level.

    :func:`predict` and :func:`update` for::

        F = [[1, 1], [0, 1]]    H = [1, 0]    Q = acceleration [[1/3, 1/2], [1/2, 1]]

    (Y. Bar-Shalom, X. Li, T. Kirubarajan, "Estimation with applications to tracking and
    navigation", 2001, section 6.2.2), entry by entry: on matrices this small nearly all
    of the time goes into starting operators, of which this takes a third.

    Args:
        mean: Level and trend, (..., 2).
        P: Their covariance, (..., 2, 2), symmetric; only its upper half is read.
        z: Measured level, (...).
        R: Measurement variance, (...), > 0.
        acceleration: Variance of the change of the trend in a step, (...), >= 0.

    Returns:
        Updated mean and covariance, and the gain of the level, (...). As in
        :func:`predict`, in float32 at least.
    """
    with _full_precision(mean):
        mean, P, z, R, acceleration = _promote(mean, P, z, R, acceleration)
        (level, trend), (top, bottom) = mean.unbind(-1), P.unbind(-2)
        a, b = top.unbind(-1)
        c = bottom.select(-1, 1)
        shared = b + c
        a = torch.add(a + b + shared, acceleration, alpha=1 / 3)
        b = torch.add(shared, acceleration, alpha=1 / 2)
        c = c + acceleration
        level = level + trend
        S = a + R
        K, K_trend = a / S, b / S
        d = z - level
        mean = torch.stack((level + K * d, trend + K_trend * d), -1)
        c = torch.addcmul(c, K_trend, b, value=-1)
        # (1 - K) a = K R without the cancellation; b alike.
        b = K_trend * R
        P = torch.stack((K * R, b, b, c), -1).reshape(*mean.shape, 2)
    return mean, P, K


def adapt_measurement_noise(
    R: Tensor, residual: Tensor, HPH: Tensor, forgetting: float
) -> Tensor:
    """Re-estimate R from the residual of an update, with exponential forgetting.

    ::

        R <- forgetting * R + (1 - forgetting) * (e e^T + H P H^T),   e = z - H x

    with x and P *after* the update. It is the residual form of innovation-based
    estimation (S. Akhlaghi, N. Zhou, Z. Huang, "Adaptive adjustment of noise
    covariance in Kalman filter for dynamic state estimation", IEEE PES General
    Meeting 2017, eq. 13). The innovation form, d d^T - H P' H^T, has the same
    expectation but can lose positive definiteness; a sum of squares cannot.

    Args:
        R: Current estimate, (..., m, m).
        residual: e, (..., m).
        HPH: H P H^T, (..., m, m).
        forgetting: In [0, 1]; 1 keeps R.

    Returns:
        The new R, (..., m, m).

    Raises:
        ValueError: If ``forgetting`` lies outside [0, 1] or a shape does not fit.
    """
    if not 0 <= forgetting <= 1:
        raise ValueError(f'forgetting: expected a value in [0, 1], got {forgetting!r}')
    m = residual.shape[-1]
    _check_matrix('R', R, m, m)
    _check_matrix('HPH', HPH, m, m)
    with _full_precision(residual):
        R, residual, HPH = _promote(R, residual, HPH)
        outer = residual.unsqueeze(-1) * residual.unsqueeze(-2)
        return symmetrize(forgetting * R + (1 - forgetting) * (outer + HPH))


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def _promote(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring tensors to one floating dtype, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        if not (tensor.is_floating_point() or tensor.dtype in _INTEGERS):
            raise ValueError(f'expected real numbers, got a {tensor.dtype} tensor')
        if tensor.dtype == torch.float64:
            dtype = torch.float64
    return tuple(tensor.to(dtype) for tensor in tensors)


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix times vector over broadcast batches."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _solve_spd(S: Tensor, rhs: Tensor) -> Tensor:
    """S^-1 rhs for symmetric positive definite S; NaN where it is not."""
    factor, info = torch.linalg.cholesky_ex(S)
    factor = factor.masked_fill((info != 0)[..., None, None], torch.nan)
    return torch.cholesky_solve(rhs, factor)


def _state_size(x: Tensor) -> int:
    if x.dim() < 1:
        raise ValueError(f'x: expected shape (..., n), got {tuple(x.shape)}')
    return x.shape[-1]


def _check_matrix(name: str, matrix: Tensor, rows: int, columns: int) -> None:
    if matrix.dim() < 2 or tuple(matrix.shape[-2:]) != (rows, columns):
        raise ValueError(
            f'{name}: expected shape (..., {rows}, {columns}), got '
            f'{tuple(matrix.shape)}'
        )
