"""AdaptiveDynamicLoss: squared errors shared between steps by a Kalman gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
from mmdet.registry import MODELS
from torch import Tensor

from daal_mmdet import kalman
from daal_mmdet.losses.filter_state import FilterState
from daal_mmdet.losses.innovation_likelihood import innovation_nll
from daal_mmdet.losses.sequences import (
    as_matrix,
    check_mask,
    check_sequence,
    mean_state,
    reduce_masked,
)
from daal_mmdet.validation import REDUCTIONS, check_choice, check_flag, check_number

__all__ = [
    'AdaptiveDynamicLoss',
    'SeriesGains',
    'adaptive_dynamic_loss',
    'series_gains',
]


class SeriesGains(NamedTuple):
    """What a filter made of a batch of series.

    Attributes:
        gain: K_k, (B, T, C), in [0, 1]; 0 at padded steps.
        P: Variance of the state after the last valid step, (B, C).
        R: Measurement variance after the last valid step, (B, C).
    """

    gain: Tensor
    P: Tensor
    R: Tensor


@torch.no_grad()
def series_gains(
    series: Tensor,
    P: Tensor,
    Q: Tensor,
    R: Tensor,
    forgetting: float = 1.0,
    mask: Tensor | None = None,
    drift: Tensor | None = None,
) -> SeriesGains:
    """Gains of a random walk plus noise that follows each channel of a series.

    ::

        x_k = x_{k-1} + B u_k + w_k,  w ~ N(0, Q)       y_k = x_k + v_k,  v ~ N(0, R)
        K_k = P'_k / (P'_k + R_k),    P'_k = P_{k-1} + Q

    With ``forgetting`` < 1, R_k follows the residuals
    (:func:`daal_mmdet.kalman.adapt_measurement_noise`). It is adapted by step k
    *before* that step's gain, so that an outlier lowers its own K_k and not the next
    one's. The first valid step starts the state and tells nothing of R.

    Args:
        series: y, (B, T, C).
        P: Variance before the first step, broadcast with (B, C).
        Q: Process variance per step, broadcast with (B, C).
        R: Measurement variance before the first step, broadcast with (B, C).
        forgetting: In [0, 1]; 1 keeps R.
        mask: (B, T), bool; False marks padding, which leaves the filter alone.
        drift: B u, (B, T, C).

    Returns:
        Gains and final variances, in float32 or, where an argument is, float64.
    """
    batch, steps, channels = series.shape
    P, R = P.expand(batch, channels), R.expand(batch, channels)
    x = series.new_zeros(batch, channels)
    started = torch.zeros(batch, 1, dtype=torch.bool, device=series.device)
    gains = []
    for t in range(steps):
        z = series[:, t]
        moved = x if drift is None else x + drift[:, t]
        moved = torch.where(started, moved, z)
        prior = P + Q
        step_R = R
        if forgetting < 1:
            mean, variance, _ = kalman.scalar_update(moved, prior, z, R)
            adapted = kalman.adapt_measurement_noise(
                R[..., None, None],
                (z - mean)[..., None],
                variance[..., None, None],
                forgetting,
            )
            step_R = torch.where(started, adapted[..., 0, 0], R)
        mean, variance, gain = kalman.scalar_update(moved, prior, z, step_R)
        if mask is None:
            x, P, R = mean, variance, step_R
            started = torch.ones_like(started)
        else:
            valid = mask[:, t, None]
            x, P = torch.where(valid, mean, x), torch.where(valid, variance, P)
            R, gain = torch.where(valid, step_R, R), torch.where(valid, gain, 0.0)
            started = started | valid
        gains.append(gain)
    if not gains:
        return SeriesGains(series.new_zeros(batch, 0, channels), P, R)
    return SeriesGains(torch.stack(gains, 1), P, R)


def adaptive_dynamic_loss(
    pred: Tensor,
    true: Tensor,
    gain: Tensor,
    mask: Tensor | None = None,
    reduction: str = 'mean',
) -> Tensor:
    """Squared errors, shared between a step and its predecessor by the gain.

    ::

        L = sum_k [ K_k (y_k - y^_k)^2 + (1 - K_k) (y_{k-1} - y^_{k-1})^2 ]

    See :class:`AdaptiveDynamicLoss` for how this reads the printed formula. The second
    term of the first step is 0: what came before it is known. All K = 1 gives the mean
    squared error, exactly.

    Args:
        pred: Forecasts y^, (B, T, C).
        true: Truth y, (B, T, C).
        gain: K, broadcast with (B, T, C), in [0, 1]; a constant.
        mask: (B, T), bool; False marks padding, which may hold NaN. The predecessor of
            a step is the valid step before it.
        reduction: 'none', 'sum', or 'mean' over the entries of valid steps.

    Returns:
        A scalar, or (B, T, C) for 'none', in float32 at least. Empty input gives 0 and
        keeps the graph.
    """
    dtype = torch.promote_types(
        torch.promote_types(pred.dtype, true.dtype), torch.float
    )
    valid = (
        torch.ones(pred.shape[:2], dtype=torch.bool, device=pred.device)
        if mask is None
        else mask
    )
    with torch.autocast(pred.device.type, enabled=False):
        if mask is not None:
            # Chosen before the arithmetic, since 0 * NaN would poison the gradient.
            pred = torch.where(mask[..., None], pred, 0)
            true = torch.where(mask[..., None], true, 0)
        error = (true.to(dtype) - pred.to(dtype)).square()
        gain = gain.detach().to(dtype)
        loss = gain * error + (1 - gain) * _previous(error, valid)
        if mask is not None:
            loss = torch.where(mask[..., None], loss, 0)
        return reduce_masked(loss, valid, reduction)


@MODELS.register_module()
class AdaptiveDynamicLoss(FilterState):
    """Loss for sequences that weighs each step by how far its truth can be trusted.

    The repository of Liu et al. ("Dynamically adaptive adjustment loss function biased
    towards few-class learning", IET Image Processing 17(2), 2023) prints::

        L = sum_{k=1}^T [ K_k MSE(y_k, y^_k) + (1 - K_k) MSE(y_{k-1}, y^_{k|k-1}) ]

    with y_k the ground truth and y^_{k|k-1} the "prior estimate from Kalman
    prediction", and leaves the filter and y^_k open. How it is read here:

    * y^_k is the network's forecast of step k.
    * y^_{k|k-1} = F y^_{k-1} + B u_k: the prediction step is applied to the network's
      forecast, as in the ``KalmanLoss`` printed beside the formula. A prior made from
      the measurements alone has no gradient, so half of the loss would train nothing.
    * Setting that prior against y_{k-1} only makes sense if the prior *is* the
      estimate of k - 1. So the model is the random walk, F = H = 1, for each channel;
      a known input B u_k moves truth and estimate alike and cancels. What is left is
      the formula at :func:`adaptive_dynamic_loss`. It is 0 for perfect forecasts.
    * The default ``reduction`` divides the printed sum by its number of entries, so
      that the scale of the loss does not depend on the length of a sequence.
    * K_k is the gain of the filter that follows the true series, see
      :func:`series_gains`: a constant for the network. With R fixed it soon is one in k
      too. So R adapts to the series (``forgetting`` < 1): K_k drops where the truth
      jumps more than its recent past explains. (The remark printed beside the formula,
      that K_k is high when process noise is low, has it the wrong way round.)

    Step k's error has the total weight K_k + 1 - K_{k+1}, about 1 on average: a
    mistrusted step hands weight to its predecessor, so *changes* of the gain matter,
    not its level, and a constant gain is the mean squared error but for the last step.

    P and R are buffers, changed in place in training mode only and stored in
    checkpoints: every sequence starts from them, and their means over the batch (and
    all ranks) after its last steps are the next ones.

    Args:
        channels: C, values per step, > 0.
        process_noise: Q, variance of a step of the random walk: a number > 0 or C.
        measurement_noise: Initial R, and initial P: a number > 0 or C.
        forgetting: Forgetting factor of R in [0, 1]; 1 keeps it.
        gain: A constant K in [0, 1] instead of the filter's; 1 is the mean squared
            error. The filter does not run then: its noises, ``forgetting`` and control
            have no effect, and P and R stay.
        learn_noise: Learn one factor of Q and one of R, by their logarithms, from the
            likelihood of the truth (:mod:`daal_mmdet.losses.innovation_likelihood`),
            which is added to the loss. The loss itself can't teach them: it would put
            all weight on the smaller error. Needs ``forgetting=1``, no ``gain``, and
            sequences of two steps or more.
        B: Control matrix, C x p; None for no control.
        reduction: 'mean', 'sum' or 'none' (not with ``learn_noise``).
        loss_weight: Factor of the whole, >= 0.

    Raises:
        TypeError, ValueError: If an argument is out of its range or does not go with
            another; the message names it.
    """

    Q: Tensor
    P: Tensor
    R: Tensor
    B: Tensor | None

    def __init__(
        self,
        channels: int = 1,
        process_noise: float | Sequence[float] = 0.1,
        measurement_noise: float | Sequence[float] = 0.1,
        forgetting: float = 0.9,
        gain: float | None = None,
        learn_noise: bool = False,
        B: object = None,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_number('channels', channels, low=1, integer=True)
        check_number('forgetting', forgetting, low=0, high=1)
        check_flag('learn_noise', learn_noise)
        check_choice('reduction', reduction, REDUCTIONS)
        check_number('loss_weight', loss_weight, low=0)
        if gain is not None:
            check_number('gain', gain, low=0, high=1)
        if learn_noise:
            for key, value, allowed in (
                ('forgetting', forgetting, (1,)),
                ('gain', gain, (None,)),
                ('reduction', reduction, ('mean', 'sum')),
            ):
                if value not in allowed:
                    raise ValueError(
                        f'{key}: learn_noise=True allows one of {allowed}, got '
                        f'{value!r}'
                    )
        self.register_buffer(
            'Q', _variances('process_noise', process_noise, channels), persistent=False
        )
        self.register_buffer(
            'R', _variances('measurement_noise', measurement_noise, channels)
        )
        self.register_buffer('P', self.R.clone())
        control = None if B is None else as_matrix('B', B, channels, None)
        self.register_buffer('B', control, persistent=False)
        self.log_q = nn.Parameter(torch.zeros(()), requires_grad=learn_noise)
        self.log_r = nn.Parameter(torch.zeros(()), requires_grad=learn_noise)
        self.channels = channels
        self.forgetting = forgetting
        self.gain = gain
        self.learn_noise = learn_noise
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        true: Tensor,
        control: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss and, in training mode, step the filter's state.

        Args:
            pred: Forecasts, (B, T, C), in the order of time.
            true: Truth, (B, T, C).
            control: u, (B, T, p); needs ``B``.
            mask: (B, T), bool; False marks padding, which may hold NaN.

        Returns:
            A scalar, or (B, T, C) for reduction 'none', in float32 or, where an
            argument is, float64. Empty input gives 0 and keeps the graph.

        Raises:
            TypeError: If ``mask`` is not bool.
            ValueError: If a shape does not fit, ``control`` comes without ``B``, or
                there are too few steps for ``learn_noise``.
        """
        self._check_shape('pred', pred)
        check_sequence('true', true, tuple(pred.shape[:2]), self.channels)
        if mask is not None:
            check_mask(mask, tuple(true.shape[:2]))
        drift = self._drift(true, control)
        if self.gain is None:
            gains = self._filter(true, drift, mask)
            gain = gains.gain
            if self.training:
                self._step(gains, pred, mask)
        else:
            gain = torch.full((), self.gain, dtype=self.P.dtype, device=pred.device)
        loss = adaptive_dynamic_loss(pred, true, gain, mask, self.reduction)
        if self.learn_noise:
            loss = loss + self._noise_nll(true, drift, mask).to(loss.dtype)
        return self.loss_weight * loss

    def gains(
        self, true: Tensor, control: Tensor | None = None, mask: Tensor | None = None
    ) -> SeriesGains:
        """Filter series from the present state, without changing it.

        It is the filter's gain also where a constant ``gain`` takes its place.

        Args:
            true: (B, T, C).
            control: u, (B, T, p); needs ``B``.
            mask: (B, T), bool; False marks padding.

        Returns:
            Gains and final variances, without gradient.

        Raises:
            TypeError: If ``mask`` is not bool.
            ValueError: If a shape does not fit, or ``control`` comes without ``B``.
        """
        self._check_shape('true', true)
        if mask is not None:
            check_mask(mask, tuple(true.shape[:2]))
        return self._filter(true, self._drift(true, control), mask)

    def _filter(
        self, true: Tensor, drift: Tensor | None, mask: Tensor | None
    ) -> SeriesGains:
        Q, R = self.log_q.exp() * self.Q, self.log_r.exp() * self.R
        return series_gains(true, self.P, Q, R, self.forgetting, mask, drift)

    def _step(self, gains: SeriesGains, pred: Tensor, mask: Tensor | None) -> None:
        seen = (
            torch.full((len(pred),), pred.shape[1] > 0, device=pred.device)
            if mask is None
            else mask.any(1)
        )
        states = torch.stack([gains.P, gains.R], 1)
        P, R = mean_state(states, seen, torch.stack([self.P, self.R]))
        self.P.copy_(P)
        if self.forgetting < 1:
            self.R.copy_(R)

    def _noise_nll(
        self, true: Tensor, drift: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        batch, steps, channels = true.shape
        if true.numel() and steps < 2:
            raise ValueError(
                'true: learn_noise needs shape (B, T, C) with T > 1, got '
                f'{tuple(true.shape)}'
            )
        valid = true.new_ones(batch, steps, dtype=torch.bool) if mask is None else mask
        # Channels are independent scalar systems: they join the batch.
        Q, R = (
            (log_scale.double().exp() * noise.double()).repeat(batch)[:, None, None]
            for log_scale, noise in ((self.log_q, self.Q), (self.log_r, self.R))
        )
        one = Q.new_ones(1, 1)
        return innovation_nll(
            _as_scalars(true.detach()),
            valid.repeat_interleave(channels, 0),
            one,
            one,
            Q,
            R,
            None if drift is None else _as_scalars(drift),
            self.reduction,
        )

    def _drift(self, true: Tensor, control: Tensor | None) -> Tensor | None:
        if control is None:
            return None
        if self.B is None:
            raise ValueError('control: expected None because B is None, got a tensor')
        check_sequence('control', control, tuple(true.shape[:2]), self.B.shape[-1])
        dtype = torch.promote_types(control.dtype, self.B.dtype)
        with torch.autocast(control.device.type, enabled=False):
            return control.detach().to(dtype) @ self.B.to(dtype).mT

    def _check_shape(self, name: str, tensor: Tensor) -> None:
        if tensor.dim() != 3 or tensor.shape[-1] != self.channels:
            raise ValueError(
                f'{name}: expected shape (B, T, {self.channels}), got '
                f'{tuple(tensor.shape)}'
            )


def _previous(error: Tensor, valid: Tensor) -> Tensor:
    """Error of the valid step before each step, (B, T, C); 0 where there is none."""
    if not error.shape[1]:
        return error
    steps = torch.arange(error.shape[1], device=error.device)
    latest = torch.where(valid, steps, -1).cummax(1).values
    before = torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], 1)
    index = before.clamp(min=0)[..., None].expand_as(error)
    return torch.where(before[..., None] >= 0, error.gather(1, index), 0.0)


def _as_scalars(series: Tensor) -> Tensor:
    """(B, T, C) -> (B * C, T, 1)."""
    return series.mT.flatten(0, 1)[..., None]


def _variances(name: str, value: float | Sequence[float], channels: int) -> Tensor:
    """One positive variance for each channel, (C,)."""
    values = list(value) if isinstance(value, Sequence) else [value] * channels
    if len(values) != channels:
        raise ValueError(
            f'{name}: expected a number or {channels} of them, got {value!r}'
        )
    for entry in values:
        check_number(name, entry, above=0)
    return torch.tensor(values, dtype=torch.float32)
