"""How much of an auxiliary loss to mix in, from a Kalman filter on the task loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from daal_mmdet import kalman
from daal_mmdet.losses.filter_state import FilterState
from daal_mmdet.validation import check_number

__all__ = ['AdaptiveProportion']

# A loss of zero has no scale of its own; below this it is treated as this large.
_SMALLEST_LEVEL = 1e-6
# Squares of a larger one would leave float32, and the filter would never come back.
_LARGEST_LEVEL = 1e15
# Relative standard deviations: of the first level and trend, and the range of sqrt(R).
_FIRST_LEVEL, _FIRST_TREND, _FIRST_NOISE, _LEAST_NOISE = 1.0, 0.1, 0.1, 1e-3


class AdaptiveProportion(FilterState):
    """Follow the level and trend of the task loss, and set the proportion by the gain.

    One measurement z (the task loss) an iteration drives a two-state filter::

        [level, trend],   F = [[1, 1], [0, 1]],   H = [1, 0],
        Q = (trend_noise * level)^2 [[1/3, 1/2], [1/2, 1]],

    the discretised white-noise-acceleration model, see
    :func:`daal_mmdet.kalman.level_trend_step`, with R re-estimated from the
    innovations. Q is relative to the level, so the gain does not change when the loss
    is rescaled.

    The gain K of the level, in (0, 1), says how far a measured loss can be trusted. The
    proportion 1 - K is near 0 while the filter still depends on each measurement and
    rises as its prediction becomes the better source. It is held between *updates*; the
    next one comes after T iterations, in which the predicted trend, taken at one
    standard deviation, changes the predicted level by a given fraction::

        T = update_fraction * |level| / (|trend| + sqrt(P_trend))

    clipped to ``update_cycle_range``: updates are frequent while the trend is steep or
    not known yet, and rare once the loss is flat.

    State lives in buffers changed in place, and nothing synchronises with the host.

    Args:
        update_cycle: Fixes T, in iterations, >= 1; None predicts it.
        update_fraction: Change of the level that calls for an update, > 0.
        update_cycle_range: Smallest and largest T, in iterations.
        trend_noise: Standard deviation of the change of trend an iteration, as a share
            of the level, > 0.
        noise_forgetting: Forgetting factor of R, in [0, 1].

    Attributes:
        mean: Level and trend, (2,).
        covariance: P, (2, 2).
        noise: R, scalar.
        gain: K of the latest measurement, scalar; 1 before the first.
        proportion: The held 1 - K, scalar; 0 before the first measurement.
        num_measurements: Measurements taken, scalar int64.
        next_update: The measurement at which the proportion is next renewed, scalar
            int64.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """

    mean: Tensor
    covariance: Tensor
    noise: Tensor
    gain: Tensor
    proportion: Tensor
    num_measurements: Tensor
    next_update: Tensor
    _first: Tensor

    def __init__(
        self,
        update_cycle: int | None = None,
        update_fraction: float = 0.1,
        update_cycle_range: Sequence[int] = (1, 100),
        trend_noise: float = 1e-3,
        noise_forgetting: float = 0.95,
    ) -> None:
        super().__init__()
        if update_cycle is not None:
            check_number('update_cycle', update_cycle, low=1, integer=True)
        check_number('update_fraction', update_fraction, above=0)
        if not _is_pair(update_cycle_range):
            raise ValueError(
                'update_cycle_range: expected (T_min, T_max), got '
                f'{update_cycle_range!r}'
            )
        shortest, longest = update_cycle_range
        check_number('update_cycle_range[0]', shortest, low=1, integer=True)
        check_number('update_cycle_range[1]', longest, low=shortest, integer=True)
        check_number('trend_noise', trend_noise, above=0)
        check_number('noise_forgetting', noise_forgetting, low=0, high=1)
        self.update_cycle = update_cycle
        self.update_fraction = update_fraction
        self.update_cycle_range = (shortest, longest)
        self.trend_noise = trend_noise
        self.noise_forgetting = noise_forgetting
        self.register_buffer('mean', torch.empty(2))
        self.register_buffer('covariance', torch.empty(2, 2))
        self.register_buffer('noise', torch.empty(()))
        self.register_buffer('gain', torch.empty(()))
        self.register_buffer('proportion', torch.empty(()))
        self.register_buffer('num_measurements', torch.empty((), dtype=torch.int64))
        self.register_buffer('next_update', torch.empty((), dtype=torch.int64))
        self.restart()
        # A constant that lives on the device too: making it there would wait for it.
        first = torch.tensor([[_FIRST_LEVEL**2, 0.0], [0.0, _FIRST_TREND**2]])
        self.register_buffer('_first', first, persistent=False)

    def restart(self) -> None:
        """Forget all measurements."""
        for name, state in self.named_buffers():
            if name != '_first':
                state.fill_(1.0 if name == 'gain' else 0.0)

    @torch.no_grad()
    def observe(self, task: Tensor, valid: Tensor) -> None:
        """Step the filter by one iteration.

        Args:
            task: The measured task loss, scalar.
            valid: Scalar bool; where false, or where the loss is above 1e15, the state
                stays as it is.
        """
        valid = valid & (task.abs() <= _LARGEST_LEVEL)
        task = torch.where(valid, task, 0.0).to(self.mean.dtype)
        fresh = self.num_measurements == 0

        # The first measurement is also the first level; the trend starts at 0.
        level, trend = self.mean.unbind()
        level = torch.where(fresh, task, level)
        scale = level.abs().clamp(min=_SMALLEST_LEVEL).square()
        covariance = torch.where(fresh, self._first * scale, self.covariance)
        noise = torch.where(fresh, _FIRST_NOISE**2 * scale, self.noise)

        mean, covariance, gain = kalman.level_trend_step(
            torch.stack((level, trend)),
            covariance,
            task,
            noise,
            acceleration=self.trend_noise**2 * scale,
        )
        # kalman.adapt_measurement_noise, of scalars.
        error = task - mean[0]
        measured = torch.addcmul(covariance[0, 0], error, error)
        noise = torch.lerp(measured, noise, self.noise_forgetting)
        noise = torch.maximum(noise, _LEAST_NOISE**2 * scale)

        count = self.num_measurements + 1
        due = count >= self.next_update
        proportion = torch.where(due, 1 - gain, self.proportion)
        next_update = count + self._cycle(mean, covariance)
        next_update = torch.where(due, next_update, self.next_update)
        for buffer, value in (
            (self.mean, mean),
            (self.covariance, covariance),
            (self.noise, noise),
            (self.gain, gain),
            (self.proportion, proportion),
            (self.next_update, next_update),
            (self.num_measurements, count),
        ):
            torch.where(valid, value, buffer, out=buffer)

    def _cycle(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """T in iterations, scalar int64."""
        if self.update_cycle is not None:
            return torch.full_like(self.next_update, self.update_cycle)
        level, trend = mean.abs()
        change = trend + covariance[1, 1].sqrt()
        cycle = self.update_fraction * level / change
        return cycle.clamp(*self.update_cycle_range).round().long()

    def extra_repr(self) -> str:
        """Options, for ``print(model)``."""
        return (
            f'update_cycle={self.update_cycle}, '
            f'update_fraction={self.update_fraction}, '
            f'update_cycle_range={self.update_cycle_range}, '
            f'trend_noise={self.trend_noise}, '
            f'noise_forgetting={self.noise_forgetting}'
        )


def _is_pair(value: object) -> bool:
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    return is_sequence and len(value) == 2
