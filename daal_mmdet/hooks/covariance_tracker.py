"""Between a box loss and its filters: whose residual is which row."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from mmengine.dist import all_gather, broadcast_object_list, get_world_size
from torch import Tensor

from daal_mmdet.covariance_bank import CovarianceBank
from daal_mmdet.losses.covariance_weighting import CovarianceWeightedLoss, RowWeights
from daal_mmdet.losses.iteration_scalars import current_iteration

__all__ = ['Announcement', 'CovarianceTracker']


class Announcement(NamedTuple):
    """A call of the loss that is about to come.

    Attributes:
        num_rows: Rows of the call.
        rows: The positives among them, (M,), int64; None if all rows are positives.
        slots: Slot of each positive, (M,), int64.
        measured: Whether the residuals are new, and not those of a call before.
    """

    num_rows: int
    rows: Tensor | None
    slots: Tensor
    measured: bool = True


class CovarianceTracker:
    """Serves one loss with weights and collects its residuals for the filter step.

    A head's adapter announces the coming calls of the loss; each call then takes its
    weights and leaves its residuals. All ranks announce at the same places, also when
    they have no positives, since weights and new levels are agreed upon there.

    Args:
        loss: The loss.
        bank: Its filters.
        name: Where the loss stands in the model, for messages.

    Attributes:
        extra_calls: Whether calls come that were not announced; their rows weigh the
            same. Its adapter says so.
        iteration: The last one that its hook has begun.
    """

    def __init__(
        self, loss: CovarianceWeightedLoss, bank: CovarianceBank, name: str
    ) -> None:
        self.loss = loss
        self.bank = bank
        self.name = name
        self.extra_calls = False
        self.iteration: int | None = None
        # Levels in the order of the bank.
        self._keys: list[Hashable] = []
        self._coming: deque[tuple[Announcement, Tensor]] = deque()
        self._running: Announcement | None = None
        self._slots: list[Tensor] = []
        self._residuals: list[Tensor] = []

    def __reduce__(self) -> tuple:
        # A copy of the model is not what is being trained.
        return type(None), ()

    def level(self, key: int, templates: int, grid: Sequence[int]) -> int:
        """Number of a level; the first time its slots are made, with rank 0's grid.

        Raises:
            ValueError: If the level has another number of templates than before.
        """
        if key not in self._keys:
            grids = [tuple(grid)]
            broadcast_object_list(grids)
            self.bank.add_level(templates, *grids[0])
            self._keys.append(key)
        level = self._keys.index(key)
        known = self.bank.levels[level][0]
        if known != templates:
            raise ValueError(
                f'{self.name}: level {key} has {templates} templates, but the filters '
                f'have {known}'
            )
        return level

    def announce(self, calls: Sequence[Announcement], skip_empty: bool) -> None:
        """Compute the weights of the coming calls.

        Args:
            calls: The calls, on all ranks for the same levels.
            skip_empty: Whether calls without rows will not come.

        Raises:
            RuntimeError: If calls that were announced before have not come.
        """
        if self._coming:
            missed = len(self._coming)
            # Told once: a forward pass that failed must not fail all that follow.
            self._coming.clear()
            raise RuntimeError(
                f'{self.name}: {missed} calls of the loss were expected and did not '
                'come, so rows and slots would no longer fit'
            )
        slots = torch.cat([call.slots for call in calls])
        weights = self.loss.row_weights(
            self.bank.log_det(slots), self.bank.level_of(slots), len(self.bank.levels)
        )
        parts = weights.split([len(call.slots) for call in calls])
        for call, part in zip(calls, parts, strict=True):
            if call.num_rows or not skip_empty:
                self._coming.append((call, part))

    def is_left(self) -> bool:
        """Whether the running iteration is one that no hook has begun for it."""
        iteration = current_iteration()
        return iteration is not None and iteration != self.iteration

    def next_call(self, num_rows: int) -> RowWeights | None:
        """Weights of the call that begins; None for one that is not tracked.

        Raises:
            RuntimeError: If it is not the call that was announced.
        """
        self._running = None
        if not self._coming and self.extra_calls:
            return None
        if not self._coming or self._coming[0][0].num_rows != num_rows:
            expected = f'{self._coming[0][0].num_rows} rows' if self._coming else 'none'
            raise RuntimeError(
                f'{self.name}: a call of the loss with {num_rows} rows came, but '
                f'{expected} was expected'
            )
        self._running, weights = self._coming.popleft()
        return RowWeights(self._running.rows, weights)

    def measure(self, residuals: Tensor) -> None:
        """Take the residuals of the positives of the running call, (M, 4)."""
        if self._running is not None and self._running.measured:
            self._slots.append(self._running.slots)
            self._residuals.append(residuals)

    def step(self) -> None:
        """Step the filters with the residuals of the iteration, from all ranks."""
        device, size = self.bank.device, self.bank.size
        slots = torch.cat(
            [torch.zeros(0, dtype=torch.int64, device=device), *self._slots]
        )
        residuals = torch.cat([torch.zeros(0, size, device=device), *self._residuals])
        self._slots, self._residuals = [], []
        self._running = None
        if get_world_size() > 1:
            slots, residuals = _from_all_ranks(slots, residuals)
        self.bank.step(slots, residuals)

    def state_dict(self) -> dict:
        """State of the filters, and which levels are theirs."""
        return {'keys': list(self._keys), **self.bank.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Go on with saved filters.

        Raises:
            ValueError: If they are of another kind; the message names the loss.
        """
        try:
            self.bank.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f'{self.name}: {error}') from error
        self._keys = list(state['keys'])


def _from_all_ranks(slots: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate the rows of all ranks, in the order of the ranks."""
    sizes = torch.cat(all_gather(slots.new_tensor([len(slots)]))).tolist()
    missing = max(sizes) - len(slots)
    all_slots = all_gather(torch.cat([slots, slots.new_zeros(missing)]))
    padding = residuals.new_zeros(missing, residuals.shape[1])
    all_residuals = all_gather(torch.cat([residuals, padding]))
    return (
        torch.cat([part[:size] for part, size in zip(all_slots, sizes, strict=True)]),
        torch.cat(
            [part[:size] for part, size in zip(all_residuals, sizes, strict=True)]
        ),
    )
