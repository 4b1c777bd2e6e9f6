"""Kalman filters of box-regression residuals, one for each slot of a detection head.

A slot is a place that regresses boxes again and again: a level, a template (anchor
shape, class, ...) and a cell of that level's grid. Its state is the expected residual,
a random walk, and each residual of the slot is a measurement of it::

    x' = x                P' = P + Q
    K  = P' (P' + R/n)^-1
    x  = x' + K (z - x')  P  = (I - K) P' (I - K)^T + K R/n K^T

where z is the mean of the n residuals that the slot has in one iteration; that is the
result of n measurements with noise R, one after the other. Q is added when the slot is
measured, not while it waits.

A slot that waits forgets instead what is its own. After m iterations without a residual
its state is, with the state of its (level, template) g::

    x_g + f^m (x - x_g)       P_g + f^m (P - P_g)       f = forgetting

so one that was never measured is g, and a small data set, which measures a cell a few
times in all, is described by its levels and templates. The state of g is the mean of
its slots as they were measured, each weighted by f^m; its level counts as one slot
more. So a template that is seldom measured is like the others of its level, not like
the prior, which counts as one slot of the level, measured when the level was added.

R is estimated from the residuals *after* the update, e = z_i - x, since
E[e e^T] = R - P for any number of measurements: the mean of e e^T + P, weighted by f^m,
which stays positive definite (compare S. Akhlaghi et al., IEEE PES General Meeting
2017, eq. 13). The estimate R_g of a (level, template) shrinks towards that of its
level, and that of a slot towards R_g; these count for ``noise_prior`` measurements::

    R = (noise_prior R_g + sum of the slot's e e^T + P) / (noise_prior + their number)

Torch only: what a row of a loss is a residual *of* is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from daal_mmdet import kalman
from daal_mmdet.cuda_replay import Replay, replayable

__all__ = ['COVARIANCES', 'CovarianceBank']

COVARIANCES = ('diag', 'full')
# Variance below which a residual is taken for exact; keeps log det P finite.
_NOISE_FLOOR = 1e-10
# Smallest eigenvalue of a full R, over its largest variance: the sum of a few squares
# is singular, and in float32 rounding would make it indefinite.
_RELATIVE_FLOOR = 1e-6
# A level that waits stops forgetting here, before its sums leave float32.
_SMALLEST_WEIGHT = 1e-10
# Slots that the sums of a level hold, where forgetting leaves more: of 2^24 in float32
# one more would change nothing, and of these a slot may have several residuals.
_LARGEST_WEIGHT = 2.0**22
# Sums of squares of larger residuals would leave float32.
_LARGEST_RESIDUAL = 1e15


class CovarianceBank:
    """Filters over the slots of one head, each measured only when it has residuals.

    Args:
        covariance: 'diag' (four independent variances) or 'full' (4 x 4).
        process_noise: Q = process_noise I, >= 0, in squared residuals.
        measurement_noise: Fixed R = measurement_noise I, > 0; None estimates it.
        initial_variance: Prior P and first R, > 0, in squared residuals.
        forgetting: f in (0, 1]; what an iteration leaves of what was measured before.
            A level's sums hold the latest 2^22 measured slots at most.
        noise_prior: Measurements, > 0, that the R of a level counts for in that of its
            templates, and this in that of a slot; inf gives a level one R.
        size: Numbers in a residual.
        device: Where the filters live.

    Attributes:
        levels: ``(templates, height, width)`` of each level.
        mean: x when it was measured last, (S, size). Slots are ordered by level, row,
            column, template.
        covariance: P when it was measured last, (S, size) or (S, size, size).
        visits: Measurements so far, (S,), int64.

    Raises:
        ValueError: If ``covariance`` is unknown.
    """

    def __init__(
        self,
        covariance: str = 'diag',
        process_noise: float = 1e-3,
        measurement_noise: float | None = None,
        initial_variance: float = 1.0,
        forgetting: float = 0.98,
        noise_prior: float = 20.0,
        size: int = 4,
        device: torch.device | str = 'cpu',
    ) -> None:
        if covariance not in COVARIANCES:
            raise ValueError(
                f'covariance: expected one of {COVARIANCES}, got {covariance!r}'
            )
        self.kind = covariance
        self.process_noise = process_noise
        self.measurement_noise = measurement_noise
        self.initial_variance = initial_variance
        self.forgetting = forgetting
        self.noise_prior = noise_prior
        self.size = size
        self.device = torch.device(device)
        self.levels: list[tuple[int, int, int]] = []
        self._unit = torch.eye(size, device=self.device)
        if covariance == 'diag':
            self._unit = self._unit.diagonal().clone()
        self.mean = self._zeros(0, size)
        self.covariance = self._zeros(0, *self._unit.shape)
        self.visits = self._zeros(0, dtype=torch.int64)
        # On the device too, where a recorded step reads them.
        self._now = self._zeros(dtype=torch.int64)
        self.iterations = 0
        self._measured_at = self._zeros(0, dtype=torch.int64)
        self._noise_sum = self._zeros(0, *self._unit.shape)
        self._noise_count = self._zeros(0)
        self._group = self._zeros(0, dtype=torch.int64)
        self._level_of_group = self._zeros(0, dtype=torch.int64)
        # One entry a (level, template): sums that forget, and of how many terms.
        self._group_noise_sum = self._zeros(0, *self._unit.shape)
        self._group_noise_count = self._zeros(0)
        self._group_mean_sum = self._zeros(0, size)
        self._group_covariance_sum = self._zeros(0, *self._unit.shape)
        self._group_log_det_sum = self._zeros(0)
        self._group_count = self._zeros(0)
        # One entry a level.
        self._prior_weight = self._zeros(0)
        self._replay_step, self._replay_log_det = Replay(), Replay()

    def __len__(self) -> int:
        return len(self.visits)

    @property
    def iterations(self) -> int:
        """Steps so far."""
        return self._iterations

    @iterations.setter
    def iterations(self, number: int) -> None:
        self._iterations = number
        self._now.fill_(number)

    def add_level(self, templates: int, height: int = 1, width: int = 1) -> int:
        """Append the slots of a level.

        Returns:
            The number of the level.

        Raises:
            ValueError: If a size is below 1.
        """
        sizes = (templates, height, width)
        if min(sizes) < 1:
            raise ValueError(
                f'templates, height, width: expected values >= 1, got {sizes}'
            )
        groups = len(self._group_count)
        count = templates * height * width
        template = torch.arange(templates, device=self.device)
        self._group = torch.cat([self._group, groups + template.repeat(height * width)])
        number = self._level_of_group.new_full((templates,), len(self.levels))
        self._level_of_group = torch.cat([self._level_of_group, number])
        for name in _SLOT_STATE:
            self._extend(name, count)
        for name in _GROUP_STATE:
            self._extend(name, templates)
        self._prior_weight = F.pad(self._prior_weight, (0, 1), value=1.0)
        self.levels.append(sizes)
        return len(self.levels) - 1

    def slots(
        self, level: int, template: Tensor, y: Tensor, x: Tensor, grid: Sequence[int]
    ) -> Tensor:
        """Slots of cells of a feature map.

        A map of the level's own size is mapped cell by cell, one of another size onto
        the cell of the level's grid at the same relative place.

        Args:
            level: Number of the level.
            template: (M,), int64, in [0, templates).
            y: Row, (M,), int64, in [0, height of the map).
            x: Column, (M,), int64, in [0, width of the map).
            grid: (height, width) of the map.

        Returns:
            (M,), int64.
        """
        templates, height, width = self.levels[level]
        y = torch.div(y * height, grid[0], rounding_mode='floor')
        x = torch.div(x * width, grid[1], rounding_mode='floor')
        first = sum(t * h * w for t, h, w in self.levels[:level])
        return first + (y * width + x) * templates + template

    def level_of(self, slots: Tensor) -> Tensor:
        """Level of slots, (M,), int64."""
        return self._level_of_group[self._group[slots]]

    def log_det(self, slots: Tensor) -> Tensor:
        """Logarithm of the determinant of P.

        Args:
            slots: (M,), int64.

        Returns:
            (M,), float32.
        """
        if not self._can_replay(slots):
            return self._log_det(slots)
        padded = F.pad(slots, (0, _missing(slots)))
        found: Tensor = self._replay_log_det(self._log_det, (padded,), *self._used())
        return found[: len(slots)].clone()

    def estimate(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """State of slots.

        Args:
            slots: (M,), int64.

        Returns:
            x, (M, size), and P, (M, size) or (M, size, size).
        """
        own = self._memory(slots)
        mean = self._shrunk(self._group_mean_sum, self._group_count, 1.0, 0.0)
        mean = _between(own, self.mean[slots], mean[self._group[slots]])
        return mean, self._covariance(slots, own)

    def noise(self, slots: Tensor) -> Tensor:
        """R of slots, (M, size) or (M, size, size)."""
        if self.measurement_noise is not None:
            noise = self.measurement_noise * self._unit
            return noise.expand(len(slots), *self._unit.shape)
        noise = self._shrunk(
            self._group_noise_sum,
            self._group_noise_count,
            self.noise_prior,
            self.initial_variance * self._unit,
        )[self._group[slots]]
        if self.noise_prior != float('inf'):
            own = self._memory(slots)
            total = (
                self.noise_prior * noise + _over(own, noise) * self._noise_sum[slots]
            )
            number = self.noise_prior + own * self._noise_count[slots]
            noise = total / _over(number, total)
        noise = noise + _NOISE_FLOOR * self._unit
        if self.kind == 'diag':
            return noise
        largest = noise.diagonal(dim1=-2, dim2=-1).amax(dim=-1)
        return noise + _RELATIVE_FLOOR * _over(largest, noise) * self._unit

    def mean_log_det(self) -> Tensor:
        """Mean of log det P over the slots of each level as they were measured lately.

        Returns:
            (levels,); NaN where nothing was measured yet.
        """
        total = self._zeros(2, len(self.levels))
        sums = torch.stack([self._group_log_det_sum, self._group_count])
        total.index_add_(1, self._level_of_group, sums)
        return total[0] / total[1]

    @torch.no_grad()
    def step(self, slots: Tensor, residuals: Tensor) -> None:
        """One filter step of every slot that has residuals.

        Args:
            slots: (M,), int64; a slot may come several times.
            residuals: (M, size), target minus prediction. Rows with a NaN or more than
                1e15 are left out.
        """
        residuals = residuals.float()
        if self._can_replay(slots):
            # Rows that are left out make calls of a few sizes.
            missing = _missing(slots)
            slots = F.pad(slots, (0, missing))
            residuals = F.pad(residuals, (0, 0, 0, missing), value=float('nan'))
            self._replay_step(self._step, (slots, residuals), *self._used())
        else:
            self._step(slots, residuals)
        self.iterations += 1

    def _can_replay(self, slots: Tensor) -> bool:
        # Those of full covariances call a solver.
        return self.kind == 'diag' and len(slots) > 0 and replayable(slots)

    def _used(self) -> tuple[tuple[Tensor, ...], tuple[float | None, ...]]:
        """Tensors and constants that a step or a look-up depends on."""
        constants = '_now', '_unit', '_group', '_level_of_group'
        names = _STATE + constants
        options = (
            self.process_noise,
            self.measurement_noise,
            self.initial_variance,
            self.forgetting,
            self.noise_prior,
        )
        return tuple(getattr(self, name) for name in names), options

    def _log_det(self, slots: Tensor) -> Tensor:
        return self._determinant(self._covariance(slots, self._memory(slots)))

    def _step(self, slots: Tensor, residuals: Tensor) -> None:
        sound = (residuals.abs() <= _LARGEST_RESIDUAL).all(dim=1)
        residuals = torch.where(sound[:, None], residuals, 0.0)
        # One row a residual throughout: how many slots they have only the device knows.
        total, first = _sums_over_equal(slots)
        count = total(sound.float())
        number = count.clamp(min=1)
        x, P = self.estimate(slots)
        z = total(residuals) / number[:, None]
        P = P + self.process_noise * self._unit
        R = self.noise(slots)
        R = R / _over(number, R)
        if self.kind == 'diag':
            x, P, _ = kalman.scalar_update(x, P, z, R)
        else:
            update = kalman.update(x, P, z, self._unit, R)
            x, P = update.mean, update.covariance
        e = residuals - x
        squares = e.square() if self.kind == 'diag' else e[:, :, None] * e[:, None, :]
        noise = total(_over(sound, P) * (squares + P))
        self._remember(slots, x, P, noise, count, first)

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on bit by bit."""
        tensors = {name: getattr(self, name) for name in _STATE}
        return {
            'options': {
                'covariance': self.kind,
                'process_noise': self.process_noise,
                'measurement_noise': self.measurement_noise,
                'initial_variance': self.initial_variance,
                'forgetting': self.forgetting,
                'noise_prior': self.noise_prior,
                'size': self.size,
            },
            'levels': list(self.levels),
            'iterations': self.iterations,
            **tensors,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; the options stay those of this bank.

        Raises:
            ValueError: If the state is one of another kind of covariance, or of a
                version of this package that kept less.
        """
        missing = [name for name in _STATE if name not in state]
        if missing:
            raise ValueError(
                f'the saved filters lack {missing}: an earlier version of daal_mmdet '
                'wrote them, and only that one can go on with them'
            )
        kind = state['options']['covariance']
        if kind != self.kind:
            raise ValueError(
                f'covariance: the saved filters are {kind!r}, '
                f'these are {self.kind!r}; resume with the same setting'
            )
        self.levels, self._group = [], self._group[:0]
        self._level_of_group = self._level_of_group[:0]
        for name in _STATE:
            setattr(self, name, getattr(self, name)[:0])
        for level in state['levels']:
            self.add_level(*level)
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        self.iterations = state['iterations']

    def _memory(self, slots: Tensor) -> Tensor:
        """Share of a slot's own state in what it is now, (M,), in [0, 1]."""
        waited = self._now - self._measured_at[slots]
        share = self.forgetting ** waited.float()
        return torch.where(self.visits[slots] > 0, share, 0.0)

    def _covariance(self, slots: Tensor, own: Tensor) -> Tensor:
        """P of slots, of which ``own`` is the share that is their own."""
        prior = self.initial_variance * self._unit
        covariance = self._shrunk(
            self._group_covariance_sum, self._group_count, 1.0, prior
        )[self._group[slots]]
        return _between(own, self.covariance[slots], covariance)

    def _remember(
        self,
        slots: Tensor,
        x: Tensor,
        P: Tensor,
        noise: Tensor,
        count: Tensor,
        first: Tensor,
    ) -> None:
        """Write the results of an update.

        Args:
            slots: (M,); rows of one slot are equal in all the others but ``first``.
            x: Updated mean.
            P: Updated covariance.
            noise: Sum of e e^T + P over the residuals of the slot.
            count: Number of these, (M,), float; a slot with none stays as it was.
            first: One row of each slot, (M,), bool.
        """
        measured = count > 0
        own = self.forgetting * self._memory(slots)
        total = _over(own, noise) * self._noise_sum[slots] + noise
        # Measured in the step that ends now.
        now = (self._now + 1).expand_as(slots)
        for buffer, value in (
            (self._noise_sum, total),
            (self._noise_count, own * self._noise_count[slots] + count),
            (self.mean, x),
            (self.covariance, P),
            (self.visits, self.visits[slots] + count.long()),
            (self._measured_at, now),
        ):
            buffer[slots] = torch.where(_over(measured, value), value, buffer[slots])
        group = self._group[slots]
        once = (first & measured).float()
        weight = self._prior_weight.index_add(
            0, self._level_of_group, self._group_count
        )
        kept = torch.where(weight > _SMALLEST_WEIGHT, self.forgetting, 1.0)
        kept = kept.minimum(_LARGEST_WEIGHT / weight)
        self._prior_weight.mul_(kept)
        kept = kept[self._level_of_group]
        for name, value in (
            ('_group_noise_sum', noise),
            ('_group_noise_count', count),
            ('_group_mean_sum', x),
            ('_group_covariance_sum', P),
            ('_group_log_det_sum', self._determinant(P)),
            ('_group_count', once),
        ):
            value = _over(once, value) * value
            total = getattr(self, name)
            total.mul_(_over(kept, total)).index_add_(0, group, value)

    def _shrunk(
        self, total: Tensor, count: Tensor, strength: float, prior: Tensor | float
    ) -> Tensor:
        """Mean of every (level, template), drawn to that of its level.

        Args:
            total: Sums over what a (level, template) has measured.
            count: Number of terms.
            strength: Number of terms that the level counts for.
            prior: Counts as one term of each level, forgotten like one.
        """
        level, weight = self._level_of_group, self._prior_weight
        level_total = self._zeros(len(self.levels), *total.shape[1:])
        level_total = (level_total + _over(weight, total) * prior).index_add(
            0, level, total
        )
        level_count = weight.index_add(0, level, count)
        mean = (level_total / _over(level_count, total))[level]
        if strength == float('inf'):
            return mean
        return (strength * mean + total) / _over(strength + count, total)

    def _determinant(self, P: Tensor) -> Tensor:
        """Logarithm of the determinant; P is positive definite."""
        if self.kind == 'diag':
            return P.log().sum(dim=1)
        factor: Tensor = torch.linalg.cholesky_ex(P).L
        return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)

    def _extend(self, name: str, count: int) -> None:
        old = getattr(self, name)
        setattr(self, name, torch.cat([old, old.new_zeros(count, *old.shape[1:])]))

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)


_SLOT_STATE = (
    'mean',
    'covariance',
    'visits',
    '_measured_at',
    '_noise_sum',
    '_noise_count',
)
_GROUP_STATE = (
    '_group_noise_sum',
    '_group_noise_count',
    '_group_mean_sum',
    '_group_covariance_sum',
    '_group_log_det_sum',
    '_group_count',
)
_STATE = (*_SLOT_STATE, *_GROUP_STATE, '_prior_weight')


def _missing(slots: Tensor) -> int:
    """Rows up to the next power of two, at least 64."""
    return max(64, 1 << (len(slots) - 1).bit_length()) - len(slots)


def _over(factor: Tensor, like: Tensor) -> Tensor:
    """(M,) with as many dimensions as ``like``."""
    return factor.view(-1, *[1] * (like.dim() - 1))


def _between(share: Tensor, own: Tensor, group: Tensor) -> Tensor:
    """What a slot has of its own, of which (M,) is the share, and of its group."""
    share = _over(share, own)
    # Not by their difference, in which a P far below its group's would be lost.
    return share * own + (1 - share) * group


def _sums_over_equal(slots: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Grouping by slot without asking the device for the number of groups.

    Args:
        slots: (M,), int64.

    Returns:
        A function that replaces each row of (M, ...) by the sum over the rows of the
        same slot, and a mask of one row a slot, (M,), bool.
    """
    ordered, order = slots.sort()
    begins = ordered.diff(prepend=ordered.new_full((1,), -1)) != 0
    first = torch.empty_like(begins).index_copy_(0, order, begins)
    group = torch.empty_like(slots).index_copy_(0, order, begins.cumsum(0) - 1)

    def total(rows: Tensor) -> Tensor:
        return torch.zeros_like(rows).index_add_(0, group, rows)[group]

    return total, first
