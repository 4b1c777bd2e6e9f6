"""KalmanLoss: an L1 between filtered forecasts and the truth, weighted by the gain."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn as nn
from mmdet.registry import MODELS
from torch import Tensor

from daal_mmdet import kalman
from daal_mmdet.losses.filter_state import FilterState
from daal_mmdet.losses.innovation_likelihood import innovation_nll
from daal_mmdet.losses.least_noise import least_noise
from daal_mmdet.losses.sequences import (
    as_matrix,
    check_covariance,
    check_mask,
    check_sequence,
    mean_state,
    reduce_masked,
)
from daal_mmdet.validation import REDUCTIONS, check_choice, check_flag, check_number

__all__ = ['GAIN_SPACES', 'KalmanLoss', 'KalmanLossResult', 'kalman_loss']

GAIN_SPACES = ('state', 'measurement')


class KalmanLossResult(NamedTuple):
    """What one call of :func:`kalman_loss` computed.

    Attributes:
        loss: A scalar, or (..., m) for reduction 'none'.
        weight: The weight of each step from its gain, (B, T), or (1, T) without mask.
        covariance: P after the last valid step, (B, n, n), or (1, n, n) without mask.
        seen: Which sequences had a valid step at all, (B,) or (1,), bool.
    """

    loss: Tensor
    weight: Tensor
    covariance: Tensor
    seen: Tensor


def kalman_loss(
    pred: Tensor,
    true: Tensor,
    P: Tensor,
    F: Tensor,
    H: Tensor,
    Q: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    control: Tensor | None = None,
    mask: Tensor | None = None,
    gain_space: str = 'state',
    reduction: str = 'mean',
) -> KalmanLossResult:
    """Gain-weighted L1 between the truth and forecasts that a Kalman filter corrected.

    For each step k of a sequence, with the network's output in the place of the state
    x_{k-1|k-1} and the truth in that of the measurement::

        x'  = F pred_k + B u_k                    P'  = F P F^T + Q
        K   = P' H^T (H P' H^T + R)^-1
        x^  = x' + K (true_k - H x')              P <- (I - K H) P'
        L_k = mean(diag K) * |true_k - H x^|

    Gradients reach ``pred`` and ``control`` only. P and K are constants: they do not
    depend on the data, and a gradient through them could only shrink the weight.

    Args:
        pred: (n,), (B, n) or (B, T, n); float. Without T there is one step.
        true: Measurements, (m,), (B, m) or (B, T, m).
        P: State covariance before the first step, (n, n).
        F: Transition, (n, n).
        H: Measurement matrix, (m, n).
        Q: Process noise covariance, (n, n).
        R: Measurement noise covariance, (m, m).
        B: Control matrix, (n, p).
        control: u, (p,), (B, p) or (B, T, p); needs ``B``. None is no input.
        mask: bool, as ``pred`` without its last dimension. False marks padding: such a
            step is neither predicted, measured nor counted, and may hold NaN.
        gain_space: 'state' takes the mean of diag K, 'measurement' that of diag HK.
        reduction: 'none', 'sum', or 'mean' over the entries of valid steps.

    Returns:
        Loss, weights and covariances in float32, or float64 where an argument is, even
        under autocast. Empty input gives a loss of 0 that keeps the graph.

    Raises:
        TypeError: If ``mask`` is not bool.
        ValueError: If a shape does not fit, or ``control`` comes without ``B``.
    """
    n, m = F.shape[-1], H.shape[-2]
    if not 1 <= pred.dim() <= 3:
        raise ValueError(
            f'pred: expected shape ({n},), (B, {n}) or (B, T, {n}), got '
            f'{tuple(pred.shape)}'
        )
    shape, leading = true.shape, tuple(pred.shape[:-1])
    check_sequence('pred', pred, leading, n)
    check_sequence('true', true, leading, m)
    if control is not None:
        if B is None:
            raise ValueError('control: expected None because B is None, got a tensor')
        check_sequence('control', control, leading, B.shape[-1])
        control = _as_batch(control)
    if mask is not None:
        check_mask(mask, leading)
        mask = _as_batch(mask[..., None])[..., 0]
    pred, true = _as_batch(pred), _as_batch(true)
    if mask is None:
        # All sequences share one covariance: a batch of one broadcasts.
        valid = pred.new_ones(min(len(pred), 1), pred.shape[1], dtype=torch.bool)
    else:
        valid = mask
        # Chosen before the arithmetic, since 0 * NaN would poison the gradient.
        pred = torch.where(mask[..., None], pred, 0)
        true = torch.where(mask[..., None], true, 0)
        if control is not None:
            control = torch.where(mask[..., None], control, 0)

    with torch.autocast(pred.device.type, enabled=False):
        priors, noise, covariance = _predicted_covariances(P, F, H, Q, R, valid)
        if control is None:
            B = None
        moved = kalman.predict(pred, P, F, Q, B, control).mean
        step = kalman.update(moved, priors, true, H, noise)
        # It goes on in single precision, unless something was given in double.
        step = kalman.KalmanUpdate(*(part.to(moved.dtype) for part in step))
        gain = step.gain if gain_space == 'state' else H.to(step.gain) @ step.gain
        weight = gain.diagonal(dim1=-2, dim2=-1).mean(-1)
        residual = true - step.mean @ H.to(step.mean).mT
        loss = residual.abs() * weight[..., None]
        if mask is not None:
            loss = torch.where(mask[..., None], loss, 0)
        loss = reduce_masked(loss, valid, reduction)
    if reduction == 'none':
        loss = loss.view(shape)
    return KalmanLossResult(loss, weight, covariance.to(weight), valid.any(1))


@MODELS.register_module()
class KalmanLoss(FilterState):
    """Loss for sequences: a filter corrects the forecast, its gain weights the error.

    The ``KalmanLoss`` that the repository of Liu et al. ("Dynamically adaptive
    adjustment loss function biased towards few-class learning", IET Image Processing
    17(2), 2023) prints; the formula is at :func:`kalman_loss`. What differs, and why:

    * ``B`` is an argument. The printed class never sets it, and its default
      ``control=None`` fails; here no control means no input.
    * The L1 compares the estimate with the truth in measurement space, H x^. The
      printed one compares x^ itself, which only has the shape of the truth if n = m.
    * P is a buffer, changed in place, detached, and stored in checkpoints. The printed
      attribute keeps the graph of every earlier call and stays on the CPU.
    * P moves in training mode only, so that an evaluation leaves no trace.
    * P is updated in Joseph's form, and K comes from a Cholesky solve, not an inverse.
    * Batches and sequences, with masks for padding; the printed shapes fit one sample.
      Every sequence starts from P; the mean of the covariances after their last steps
      (over all ranks) is the next P.
    * ``gain_space='measurement'`` weights by the mean of diag HK, which lies in [0, 1)
      for every H. That of diag K (the default, as printed) does so where H picks the
      first entries of the state in their order, H = [I 0]. Elsewhere it need not: a
      negative entry of H can turn it negative, and a permutation can make it 0.
    * Noise can be learned, see below.

    As 1 - HK multiplies the error too, what reaches a scalar forecast is
    K (1 - K) |true - pred|: an L1 whose scale vanishes for K near 0 *and* near 1. Once
    P has settled, K is a constant, so that it trains as ``L1Loss`` with that weight.
    The gradient of this loss would push noise scales to where K (1 - K) = 0. So with
    ``learn_noise`` they follow the likelihood of the truth under the filter instead
    (:func:`~daal_mmdet.losses.innovation_likelihood.innovation_nll`, added to the
    loss), which does not touch the network.

    Args:
        state_dim: n, entries of a forecast, > 0.
        F: Transition, n x n, as nested lists, array or tensor.
        H: Measurement matrix, m x n.
        Q: Process noise covariance, n x n, positive semi-definite.
        R: Measurement noise covariance, m x m, positive definite.
        B: Control matrix, n x p; None for no control.
        learn_noise: Learn one factor of Q and one of R, by their logarithms. Needs
            sequences of more than n steps.
        gain_space: 'state' or 'measurement'.
        reduction: 'mean', 'sum' or 'none' (not with ``learn_noise``).
        loss_weight: Factor of the whole, >= 0.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """

    F: Tensor
    H: Tensor
    Q: Tensor
    R: Tensor
    B: Tensor | None
    P: Tensor

    def __init__(
        self,
        state_dim: int,
        F: object,
        H: object,
        Q: object,
        R: object,
        B: object = None,
        learn_noise: bool = False,
        gain_space: str = 'state',
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_number('state_dim', state_dim, low=1, integer=True)
        check_flag('learn_noise', learn_noise)
        check_choice('gain_space', gain_space, GAIN_SPACES)
        check_choice('reduction', reduction, REDUCTIONS)
        check_number('loss_weight', loss_weight, low=0)
        if learn_noise and reduction == 'none':
            raise ValueError(
                "reduction: expected 'mean' or 'sum' because learn_noise=True adds a "
                "term that has no entry of its own for each value, got 'none'"
            )
        n = state_dim
        measurement = as_matrix('H', H, None, n)
        m = len(measurement)
        # Constants come from the config; only the state belongs into a checkpoint.
        for name, matrix in (
            ('F', as_matrix('F', F, n, n)),
            ('H', measurement),
            ('Q', as_matrix('Q', Q, n, n)),
            ('R', as_matrix('R', R, m, m)),
            ('B', None if B is None else as_matrix('B', B, n, None)),
        ):
            self.register_buffer(name, matrix, persistent=False)
        check_covariance('Q', self.Q, definite=False)
        check_covariance('R', self.R, definite=True)
        self.register_buffer('P', torch.eye(n, dtype=self.F.dtype))
        self.log_q = nn.Parameter(torch.zeros(()), requires_grad=learn_noise)
        self.log_r = nn.Parameter(torch.zeros(()), requires_grad=learn_noise)
        self.learn_noise = learn_noise
        self.gain_space = gain_space
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        true: Tensor,
        control: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss and, in training mode, step P.

        Args:
            pred: Forecasts in the place of the state, (n,), (B, n) or (B, T, n).
            true: Truth, (m,), (B, m) or (B, T, m).
            control: u, (p,), (B, p) or (B, T, p).
            mask: bool, as ``pred`` without its last dimension; False marks padding.

        Returns:
            A scalar, or (..., m) for reduction 'none'.

        Raises:
            TypeError: If ``mask`` is not bool.
            ValueError: If a shape does not fit, ``control`` comes without ``B``, or
                there are too few steps for ``learn_noise``.
        """
        result = self._filter(pred, true, control, mask)
        if self.training:
            self.P.copy_(mean_state(result.covariance, result.seen, self.P))
        loss = result.loss
        if self.learn_noise:
            loss = loss + self._noise_nll(true, control, mask).to(loss.dtype)
        return self.loss_weight * loss

    @torch.no_grad()
    def step_weights(self, true: Tensor, mask: Tensor | None = None) -> Tensor:
        """Weight of each step from its gain, from the present P, without changing it.

        Args:
            true: Truth, (m,), (B, m) or (B, T, m); only its shape and type count.
            mask: bool, as ``true`` without its last dimension; False marks padding.

        Returns:
            (B, T), or (1, T) without mask.

        Raises:
            TypeError: If ``mask`` is not bool.
            ValueError: If a shape does not fit.
        """
        pred = true.new_zeros(*true.shape[:-1], len(self.F))
        return self._filter(pred, true, None, mask).weight

    def _filter(
        self,
        pred: Tensor,
        true: Tensor,
        control: Tensor | None,
        mask: Tensor | None,
    ) -> KalmanLossResult:
        with torch.no_grad():
            Q, R = self.log_q.exp() * self.Q, self.log_r.exp() * self.R
        return kalman_loss(
            pred,
            true,
            self.P,
            self.F,
            self.H,
            Q,
            R,
            self.B,
            control,
            mask,
            self.gain_space,
            self.reduction,
        )

    def _noise_nll(
        self,
        true: Tensor,
        control: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        n = self.F.shape[-1]
        if true.dim() != 3 or (true.numel() and true.shape[1] <= n):
            raise ValueError(
                f'true: learn_noise needs shape (B, T, m) with T > {n}, got '
                f'{tuple(true.shape)}'
            )
        valid = (
            true.new_ones(true.shape[:2], dtype=torch.bool) if mask is None else mask
        )
        drift = None
        if control is not None and self.B is not None:
            drift = control.detach().double() @ self.B.double().mT
        # In double precision, like the likelihood: a slope by Q or R of a truth that is
        # far off may leave float32 where that by its logarithm does not.
        Q, R = (
            log_scale.double().exp() * noise.double()
            for log_scale, noise in ((self.log_q, self.Q), (self.log_r, self.R))
        )
        return innovation_nll(
            true.detach(), valid, self.F, self.H, Q, R, drift, self.reduction
        )


@torch.no_grad()
def _predicted_covariances(
    P: Tensor, F: Tensor, H: Tensor, Q: Tensor, R: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """P' before each step, (B, T, n, n), R there, and P after the last valid one.

    In double precision: single loses the digits of a P that one measurement shrinks to
    a millionth, and what is left of it may be no covariance.
    """
    n, m, digits = F.shape[-1], H.shape[-2], P.dtype
    P, F, H, Q, R = P.double(), F.double(), H.double(), Q.double(), R.double()
    x, z = P.new_zeros(n), P.new_zeros(m)
    P = P.expand(len(valid), n, n).clone()
    largest = P.abs()
    priors, noises = [], []
    for moved in valid.unbind(1):
        prior = kalman.predict(x, P, F, Q).covariance
        # Errors of a large P outlive it: the next one may be smaller than they are.
        largest = torch.maximum(largest, prior.abs())
        noise = R + least_noise(H, prior, digits)
        noise = noise + least_noise(H, largest, P.dtype)
        posterior = kalman.update(x, prior, z, H, noise).covariance
        priors.append(prior)
        noises.append(noise)
        P = torch.where(moved[:, None, None], posterior, P)
    if not priors:
        nothing = P.new_zeros(len(valid), 0, n, n)
        return nothing, P.new_zeros(len(valid), 0, m, m), P
    return torch.stack(priors, 1), torch.stack(noises, 1), P


def _as_batch(tensor: Tensor) -> Tensor:
    """(n,) or (B, n) as one step of a batch of sequences, (B, 1, n)."""
    if tensor.dim() == 3:
        return tensor
    return tensor.reshape(-1, 1, tensor.shape[-1])
