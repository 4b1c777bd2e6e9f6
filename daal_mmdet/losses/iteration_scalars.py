"""Where a loss learns which iteration it is in, and shows its scalars."""

from __future__ import annotations

import re

import torch
from mmengine.logging import MessageHub
from torch import Tensor

__all__ = ['IterationScalars', 'check_prefix', 'current_iteration']

# RuntimeInfoHook sets it for the time of a loop.
_STAGE = 'loop_stage'


# A compiled loss leaves its graph to read.
@torch.compiler.disable
def current_iteration() -> int | None:
    """The running iteration as ``RuntimeInfoHook`` keeps it; None with no runner.

    Several runners may have been built in a process: the one at work counts, not the
    one built last. A hub in which somebody has set ``'iter'`` alone counts too, one
    whose training is over does not. One whose training an exception ended seems to be
    at work to the end of the process, unless a runner is built after it.
    """
    hub = _hub_at_work()
    if hub.get_info(_STAGE) is None and hub.get_info('max_iters') is not None:
        return None
    iteration: int | None = hub.get_info('iter')
    return iteration


def _hub_at_work() -> MessageHub:
    """That of the runner in a loop; the current one where none is."""
    for hub in reversed(MessageHub._instance_dict.values()):
        if hub.get_info(_STAGE) is not None:
            return hub
    return MessageHub.get_current_instance()


def check_prefix(key: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` can be the first part of scalars' names."""
    # MMEngine logs the mean of the last iterations of what has 'loss' in its name.
    if not isinstance(value, str) or 'loss' in value:
        raise ValueError(f"{key}: expected a string without 'loss', got {value!r}")


class IterationScalars:
    """Show device scalars in the MessageHub without waiting for the device.

    On a CPU values appear at once. From a GPU they travel in the background and appear
    when the next ones are sent, one iteration later.

    Args:
        prefix: First part of the names, ``train/<prefix>_<name>``. A place in a model
            goes without the ``.loss`` of its attributes (see :func:`check_prefix`).
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = re.sub('[._]?loss', '', prefix)
        self._in_flight: tuple[list[str], Tensor, torch.cuda.Event] | None = None

    @torch.compiler.disable
    def send(self, scalars: dict[str, Tensor]) -> None:
        """Publish scalar tensors, all on one device, under their names."""
        names = list(scalars)
        values = torch.stack(list(scalars.values()))
        if values.device.type != 'cuda':
            self._publish(names, values)
            return
        if self._in_flight is not None:
            *arrived, done = self._in_flight
            if not done.query():
                return
            self._publish(*arrived)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        done = torch.cuda.Event()
        # The current device may be another one.
        done.record(torch.cuda.current_stream(values.device))
        self._in_flight = names, host, done

    def _publish(self, names: list[str], values: Tensor) -> None:
        hub = _hub_at_work()
        for name, value in zip(names, values.tolist(), strict=True):
            hub.update_scalar(f'train/{self.prefix}_{name}', value)

    def __getstate__(self) -> dict:
        # A copied or pickled loss starts with nothing on its way (events can't be).
        return {**self.__dict__, '_in_flight': None}
