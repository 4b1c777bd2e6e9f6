"""Training that a stop in between does not change."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

__all__ = ['RepeatableTrainingHook']


@HOOKS.register_module()
class RepeatableTrainingHook(Hook):
    """Random numbers follow from the seed and the iteration alone.

    MMEngine seeds a process when it starts. Whatever draws random numbers shifts those
    of everything after it: a validation, a loss that samples, a resume, which starts
    them again. Here

    * each iteration starts its process from ``seed`` and its own number, so that two
      losses compared with one seed get the same proposals and samples to start from;
    * after a resume, the batches trained before are loaded once more and dropped, so
      that the random numbers of the worker processes, and with them the augmentation,
      go on where they were. MMEngine 0.10 does so for iterations but not for epochs;
      its fork skips batches without loading them.

    Exact where data are loaded by worker processes (``num_workers > 0``).

    Args:
        seed: As in ``randomness``.
    """

    priority = 'VERY_HIGH'

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._resumed = False

    def before_train(self, runner: Runner) -> None:
        """See whether training goes on from a checkpoint."""
        self._resumed = runner.iter > 0

    def before_train_epoch(self, runner: Runner) -> None:
        """Catch up with the worker processes of the run that was stopped."""
        if not self._resumed:
            return
        self._resumed = False
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            for epoch in range(loop.epoch):
                _set_epoch(loop.dataloader, epoch)
                for _ in loop.dataloader:
                    continue
            _set_epoch(loop.dataloader, loop.epoch)
        elif isinstance(loop, IterBasedTrainLoop) and hasattr(
            loop, 'fast_forward_on_resume'
        ):
            loop.fast_forward_on_resume = True
            for _ in _take(loop.dataloader_iterator, loop.iter):
                continue

    def before_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
    ) -> None:
        """Seed this process for the iteration."""
        # One 32-bit number from both: seeds next to each other must not share streams.
        sequence = np.random.SeedSequence((self.seed, runner.iter))
        number = int(sequence.generate_state(1)[0])
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)


def _set_epoch(dataloader: torch.utils.data.DataLoader, epoch: int) -> None:
    for sampler in (
        dataloader.sampler,
        getattr(dataloader.batch_sampler, 'sampler', None),
    ):
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(epoch)


def _take(batches: Iterator, number: int) -> Iterator:
    for _ in range(number):
        yield next(batches)
