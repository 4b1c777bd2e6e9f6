"""Task loss plus nuclear-norm term, in fixed or adaptive proportion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from daal_mmdet.cuda_replay import Replay, replayable, settings_of
from daal_mmdet.losses.adaptive_proportion import AdaptiveProportion
from daal_mmdet.losses.filter_state import FilterState, in_full_precision
from daal_mmdet.losses.iteration_scalars import (
    IterationScalars,
    check_prefix,
    current_iteration,
)
from daal_mmdet.losses.snapshot import snapshot
from daal_mmdet.validation import check_flag, check_number

__all__ = ['AdaptiveComposition']

# What one iteration gathers besides the counts of a subclass.
_TASK, _BNM, _CALLS, _BAD = range(4)
_COUNTS_END = -(_BAD + 1)


class AdaptiveComposition(FilterState):
    """Base of losses L_k = L_task + lambda_k L_bnm that know their iteration.

    ::

        lambda_k = bnm_weight * (1 - K_k)    or bnm_weight, if not bnm_adaptive

    with the gain K of :class:`AdaptiveProportion`. A subclass computes the two terms;
    in its forward it calls, in this order, :meth:`begin_call`, :meth:`compose` and
    :meth:`end_call`.

    An *iteration* runs from one value of ``MessageHub``'s ``'iter'`` to the next,
    however many calls it holds; with no runner each call is one. L_bnm is averaged
    over the calls of an iteration, as many as the iteration before had. The filter
    steps once an iteration, on sums over calls and ranks; one with a non-finite loss
    leaves it as it was. State lives in tensors changed in place, and in checkpoints.
    Training that starts from one without resuming it (``load_from``) has other data and
    another loss, so the filters start anew.

    Args:
        bnm_weight: Weight of L_bnm, >= 0.
        bnm_adaptive: Whether the Kalman gain scales ``bnm_weight``.
        update_cycle: Iterations between updates of the proportion, >= 1; None predicts
            them.
        update_fraction: Predicted change of the task loss, as a share of it, > 0, that
            calls for an update.
        update_cycle_range: Smallest and largest predicted cycle, in iterations, >= 1.
        trend_noise: Relative process noise of the task filter, > 0.
        noise_forgetting: Forgetting factor of its measurement noise, in [0, 1].
        log_prefix: First part of the scalars' names, ``train/<log_prefix>_...``,
            without 'loss' in it; None leaves it to the subclass.
        num_counts: Number of further sums that a subclass gathers, >= 0.

    Attributes:
        proportion: The filter; None where nothing adapts.
        pending: Sums of the running iteration on this rank, (num_counts + 4,). In the
            state dict, but no buffer: DDP may copy rank 0's buffers to all. Of several
            ranks rank 0 writes the checkpoint, and its sums are those of all after a
            resume: one measurement of the filters.
        calls_per_iteration: Calls of the iteration before, scalar.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """

    pending: Tensor
    calls_per_iteration: Tensor
    _shown: Tensor

    def __init__(
        self,
        bnm_weight: float,
        bnm_adaptive: bool,
        update_cycle: int | None,
        update_fraction: float,
        update_cycle_range: Sequence[int],
        trend_noise: float,
        noise_forgetting: float,
        log_prefix: str | None,
        num_counts: int = 0,
    ) -> None:
        super().__init__()
        check_number('bnm_weight', bnm_weight, low=0)
        check_flag('bnm_adaptive', bnm_adaptive)
        if log_prefix is not None:
            check_prefix('log_prefix', log_prefix)
        self.bnm_weight = bnm_weight
        # Built in any case, so that a bad option is an error with no BNM term too.
        proportion = AdaptiveProportion(
            update_cycle,
            update_fraction,
            update_cycle_range,
            trend_noise,
            noise_forgetting,
        )
        adapts = bnm_weight > 0 and bnm_adaptive
        self.proportion = proportion if adapts else None
        self.pending = torch.zeros(num_counts + _BAD + 1)
        self.register_buffer('calls_per_iteration', torch.ones(()))
        # Task loss and L_bnm, to show while no iteration brings others.
        self.register_buffer('_shown', torch.zeros(2), persistent=False)
        self.log_prefix = log_prefix
        self._iteration: int | None = None
        self._loaded = False
        self._scalars: IterationScalars | None = None
        self._replay_call, self._replay_iteration = Replay(), Replay()

    def resize_counts(self, num_counts: int) -> None:
        """Gather another number of sums; before the first call."""
        self.pending = self.pending.new_zeros(num_counts + _BAD + 1)

    def restart(self) -> None:
        """Forget what the filters know and what was gathered for them."""
        self.pending.zero_()
        self.calls_per_iteration.fill_(1.0)
        if self.proportion is not None:
            self.proportion.restart()

    def begin_call(self, feeds: bool) -> bool:
        """End the iteration before if this call is the first of another.

        The first call of a training has none before it, unless it resumes another.

        Args:
            feeds: Whether this call will feed the filters.

        Returns:
            Whether the call is an iteration of its own, as with no runner; for
            :meth:`end_call`.
        """
        alone, starts, ends = self._look_at_the_iteration(feeds)
        if starts:
            self.restart()
        elif ends:
            self._end_iteration()
        return alone

    # A compiled loss leaves its graph here to read: inside it would be compiled again
    # for each number of an iteration.
    @torch.compiler.disable
    def _look_at_the_iteration(self, feeds: bool) -> tuple[bool, bool, bool]:
        """Whether there is no runner, a training starts, an iteration has ended."""
        # FSDP moves parameters and buffers one by one, and this is neither.
        self.pending = self.pending.to(self.calls_per_iteration.device)
        iteration = current_iteration()
        if not feeds or iteration == self._iteration:
            return iteration is None, False, False
        # A checkpoint that is only loaded leaves mmengine's counter at 0.
        resumes = self._loaded and iteration != 0
        # Iteration 0 is the first, also of a model that another runner has trained.
        starts = iteration == 0 or (self._iteration is None and not resumes)
        self._iteration = iteration
        return iteration is None, starts, not starts

    def compose(self, task: Tensor, bnm: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Mix the terms of a call.

        Args:
            task: L_task, scalar.
            bnm: L_bnm of this call alone, scalar; None without that term.

        Returns:
            L_k, and this call's part of the mean of L_bnm over the iteration.
        """
        if bnm is None:
            return task, None
        # A tensor of its own: the buffer may change before the backward pass.
        share = snapshot(1 / self.calls_per_iteration)
        bnm = share * bnm
        factor = self._bnm_factor()
        if isinstance(factor, Tensor):
            factor = snapshot(factor)
        return task + factor * bnm, bnm

    @torch.no_grad()
    def end_call(
        self,
        alone: bool,
        task: Tensor,
        bnm: Tensor | None,
        counts: Tensor | None = None,
        has_bnm: bool = True,
    ) -> None:
        """Add what a call tells to the iteration's sums, which stay finite.

        Args:
            alone: What :meth:`begin_call` returned.
            task: L_task.
            bnm: L_bnm as :meth:`compose` returned it.
            counts: Further sums of a subclass, up to (num_counts,).
            has_bnm: Whether calls of this kind share L_bnm of the iteration.
        """
        bnm = torch.zeros_like(task) if bnm is None else bnm
        sums = (task, bnm) if counts is None else (task, bnm, counts)
        self._replay_call(
            partial(self._add_call, has_bnm),
            tuple(term.detach() for term in sums),
            (self.pending,),
            (has_bnm,),
        )
        if alone:
            self._end_iteration()

    def _add_call(
        self, has_bnm: bool, task: Tensor, bnm: Tensor, counts: Tensor | None = None
    ) -> None:
        terms = torch.stack((task, bnm.to(task.dtype)))
        finite = torch.isfinite(terms).all()
        sums, tail = self.pending[:_COUNTS_END], self.pending[_COUNTS_END:]
        tail[_TASK : _BNM + 1].add_(torch.where(finite, terms, 0.0))
        tail[_CALLS].add_(has_bnm)
        tail[_BAD].add_(~finite)
        if counts is not None:
            sums[: len(counts)].add_(torch.nan_to_num(counts, nan=0.0))

    def _bnm_factor(self) -> Tensor | float:
        """Lambda of the current iteration."""
        if self.proportion is None:
            return self.bnm_weight
        return self.bnm_weight * self.proportion.proportion

    @torch.no_grad()
    def _end_iteration(self) -> None:
        """Step the filters on the gathered sums of all ranks, and start afresh."""
        all_reduce(self.pending)
        ranks = get_world_size()
        step = partial(self._step_filters, ranks)
        if replayable(self.pending):
            settings = ranks, *settings_of(self)
            state = (self.pending, *self.buffers())
            scalars = self._replay_iteration(step, state=state, settings=settings)
        else:
            scalars = step()
        if self._scalars is None:
            # By now the model is put together, and the loss can know its place.
            self._scalars = IterationScalars(self._name_of_scalars())
        self._scalars.send(scalars)
        self._iteration_ended()

    def _step_filters(self, ranks: int) -> dict[str, Tensor]:
        counts, tail = self.pending[:_COUNTS_END], self.pending[_COUNTS_END:]
        tail = tail / ranks
        valid = (tail[_CALLS] > 0) & (tail[_BAD] == 0)
        self._observe_counts(counts, valid)
        if self.proportion is not None:
            self.proportion.observe(tail[_TASK], valid)
        # Below 1 where some ranks had no call; those that have one have a whole one.
        calls = torch.where(
            valid, tail[_CALLS].clamp(min=1.0), self.calls_per_iteration
        )
        self.calls_per_iteration.copy_(calls)
        torch.where(valid, tail[: _BNM + 1], self._shown, out=self._shown)
        self.pending.zero_()
        task, bnm = self._shown
        scalars = {'task': task}
        if self.bnm_weight > 0:
            scalars['bnm'] = bnm
            scalars['lambda'] = self._bnm_factor() * torch.ones_like(bnm)
        if self.proportion is not None:
            scalars['gain'] = self.proportion.gain
        return scalars | self._further_scalars()

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> AdaptiveComposition:
        super()._apply(fn, recurse)
        self.pending = in_full_precision(self.pending, fn(self.pending))
        return self

    def _save_to_state_dict(
        self, destination: dict, prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f'{prefix}pending'] = self.pending

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        lists = missing_keys, unexpected_keys, error_msgs
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, *lists
        )
        key = f'{prefix}pending'
        if key not in state_dict:
            missing_keys.append(key)
            return
        if key in unexpected_keys:
            unexpected_keys.remove(key)
        # It may be a view of the state that is emptied here.
        saved = state_dict[key].clone()
        counts = min(len(saved), len(self.pending)) + _COUNTS_END
        # Room for more or fewer classes lies before the sums of every loss.
        self.pending.zero_()
        self.pending[:counts] = saved[:counts]
        self.pending[_COUNTS_END:] = saved[_COUNTS_END:]
        self._loaded = True
        self._iteration = None

    def _iteration_ended(self) -> None:
        """For a subclass: what its host has to do then."""

    def _observe_counts(self, counts: Tensor, valid: Tensor) -> None:
        """For a subclass: use its sums, (num_counts,), of a finished iteration."""

    def _further_scalars(self) -> dict[str, Tensor]:
        """For a subclass: what it logs besides."""
        return {}

    def _name_of_scalars(self) -> str:
        """For a subclass: the first part of their names."""
        if self.log_prefix is None:
            raise ValueError('log_prefix: expected a string, got None')
        return self.log_prefix
