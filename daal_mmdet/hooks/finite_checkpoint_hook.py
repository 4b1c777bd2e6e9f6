"""No checkpoint of weights that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from daal_mmdet.first_few import first_few

__all__ = ['FiniteCheckpointHook', 'NotFiniteError']

# Keys of a checkpoint that hold weights; EMAHook adds the second.
_WEIGHTS = ('state_dict', 'ema_state_dict')


class NotFiniteError(FloatingPointError):
    """A checkpoint was not written, because what it would hold is not finite."""


@HOOKS.register_module()
class FiniteCheckpointHook(Hook):
    """Stop a training before it writes a checkpoint that is of no use.

    mmdet's ``CheckInvalidLossHook`` looks at the loss now and then. A NaN between two
    looks spoils the weights, and a checkpoint that is due before the next look holds
    them: a resumed training would go on from it, and older ones are removed meanwhile.
    This hook looks at every checkpoint right before it is written, where weights and
    loss are on the CPU already, so that no step of the training waits for it.

    Refused are NaN in any weight or buffer, infinity in any weight (a buffer may hold
    it by design, as masks do), and a loss of the last iteration that is not finite. A
    loss that was not finite earlier and left the weights alone, as with the scaler of
    mixed precision, is not.
    """

    # After EMAHook, which adds its weights to the checkpoint.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._checked = 0

    def before_train(self, runner: Runner) -> None:
        """Note where the iterations of this run begin."""
        self._checked = runner.iter

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the checkpoint.

        Raises:
            NotFiniteError: If it is of no use. The message names what is not finite,
                the iteration, where it began, and the last good checkpoint.
        """
        iteration = checkpoint['meta']['iter']
        losses = _Losses(runner, iteration)
        wrong = list(_not_finite(checkpoint, runner))
        if not wrong and not losses.finite_at(iteration):
            wrong = losses.names_at(iteration)
        if not wrong:
            self._checked = iteration
            return
        message = (
            f'no checkpoint is written after iteration {iteration}, since '
            f'{first_few(wrong)} {"is" if len(wrong) == 1 else "are"} not finite. '
        )
        first = losses.first_not_finite(self._checked + 1, iteration)
        if first is None:
            message += f'All losses since iteration {self._checked} were. '
        else:
            began = first_few(losses.names_at(first))
            message += f'It began in iteration {first} with {began}. '
        # Without one of its own the pointer is that of an earlier training here.
        raise NotFiniteError(message + _way_on(runner, self._checked > 0))


class _Losses:
    """The losses of past iterations, as mmengine keeps them for its log."""

    def __init__(self, runner: Runner, iteration: int) -> None:
        histories = {
            key.removeprefix('train/'): history.data[0]
            for key, history in runner.message_hub.log_scalars.items()
            if key.startswith('train/') and 'loss' in key
        }
        self._total = histories.get('loss', np.empty(0))
        # A part that is missing in some iterations can't be told by its place.
        self._parts = {
            name: values
            for name, values in histories.items()
            if name != 'loss' and len(values) == len(self._total)
        }
        # The last entry is that of the last iteration.
        self._offset = len(self._total) - iteration - 1

    def finite_at(self, iteration: int) -> bool:
        index = iteration + self._offset
        return index < 0 or bool(np.isfinite(self._total[index]))

    def first_not_finite(self, start: int, end: int) -> int | None:
        """The first such iteration from ``start`` to ``end``."""
        wrong = (i for i in range(start, end + 1) if not self.finite_at(i))
        return next(wrong, None)

    def names_at(self, iteration: int) -> list[str]:
        """Losses that are not finite in an iteration, with their values."""
        index = iteration + self._offset
        parts = [
            f'{name} ({values[index]})'
            for name, values in self._parts.items()
            if not np.isfinite(values[index])
        ]
        return parts or [f'loss ({self._total[index]})']


def _not_finite(checkpoint: dict, runner: Runner) -> Iterator[str]:
    """Names of the weights that are of no use."""
    model = getattr(runner.model, 'module', runner.model)
    buffers = {name for name, _ in model.named_buffers()}
    for key in _WEIGHTS:
        for name, value in checkpoint.get(key, {}).items():
            if not isinstance(value, Tensor) or not value.is_floating_point():
                continue
            # EMAHook's names are those of the model that it averages.
            by_design = name.removeprefix('module.') in buffers
            bad = value.isnan() if by_design else ~torch.isfinite(value)
            if bad.any():
                yield name if key == 'state_dict' else f'{name} (of {key})'


def _way_on(runner: Runner, has_checkpoint: bool) -> str:
    # CheckpointHook writes this file after each checkpoint.
    pointer = Path(runner.work_dir, 'last_checkpoint')
    known = has_checkpoint and pointer.is_file()
    last = pointer.read_text().strip() if known else ''
    if not last or not ('://' in last or Path(last).is_file()):
        return 'There is no checkpoint before it. Lower the learning rate'
    return (
        f'The last good checkpoint is {last}. Lower the learning rate or clip the '
        f'gradients, and go on with --resume {last}'
    )
