"""Random numbers that depend on the iteration, so that a resume draws them again."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

__all__ = ['IterationSeedHook']

# Which of an iteration's two streams: reading its batch, or the step itself.
_DATA, _STEP = range(2)


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed Python, NumPy and PyTorch anew for each iteration.

    mmengine checkpoints hold no random state, so a resumed training draws other flips,
    other RoI samples and other dropout than the unbroken one, and ends elsewhere. With
    this hook the state is no longer a thing to save: before each iteration, and before
    its batch is read, the generators are seeded by the run's seed, the iteration and
    the rank. A resumed run then ends with the weights of the unbroken one, to the bit
    where the operations themselves are deterministic; runs on other numbers of
    processes need nothing converted.

    What else that takes: ``randomness=dict(seed=...)``, which the order of the data
    depends on; for an epoch-based loop, checkpoints at the ends of epochs, where it
    can resume; and, where worker processes augment, an epoch-based loop with
    ``persistent_workers=False``, or ``num_workers=0``. Workers that live on, as they do
    throughout a loop of iterations, draw from where they are, and those of a resumed
    run begin anew: the hook warns. (mmengine seeds new workers alike in every epoch.) A
    resumed loop of iterations of the original mmengine (0.10.7) loads the batches
    behind it once more, after the seeding, so that its first batch is another; the
    maintained fork skips them. Where workers must live on, the benchmark's
    ``RepeatableTrainingHook`` loads the batches that a resumed run has behind it once
    more; a config needs one of the two hooks.
    """

    # Before every hook and step that draws.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Seed the reading of the first batch; warn of what can't be repeated."""
        loader = runner.train_dataloader
        iterates = isinstance(runner.train_loop, IterBasedTrainLoop)
        if loader.num_workers > 0 and (iterates or loader.persistent_workers):
            remedy = 'num_workers=0' if iterates else 'persistent_workers=False'
            runner.logger.warning(
                'IterationSeedHook: the augmentations of workers that live on after an '
                'epoch, or in a loop of iterations, differ after a resume; '
                f'train_dataloader.{remedy} repeats them'
            )
        # An iterator draws a number when it is made, in a loop of iterations between
        # this seeding and the reading. It must not be one of the batch's.
        loader.generator = torch.Generator()
        self._seed(runner, runner.iter, _DATA)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the reading of the first batch of an epoch."""
        self._seed(runner, runner.iter, _DATA)
        runner.train_dataloader.generator.manual_seed(torch.initial_seed())

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed the step."""
        self._seed(runner, runner.iter, _STEP)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Seed the reading of the next batch."""
        self._seed(runner, runner.iter + 1, _DATA)

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Forget what the validation drew."""
        self._seed(runner, runner.iter, _DATA)

    def _seed(self, runner: Runner, iteration: int, stream: int) -> None:
        entropy = (runner.seed, iteration, get_rank(), stream)
        first, second, third = np.random.SeedSequence(entropy).generate_state(3)
        random.seed(int(first))
        np.random.seed(int(second))
        # Seeds the generators of all devices.
        torch.manual_seed(int(third))
