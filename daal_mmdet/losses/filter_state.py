"""Modules whose floating-point buffers are what a filter knows."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
from torch import Tensor

__all__ = ['FilterState', 'in_full_precision']


def in_full_precision(state: Tensor, moved: Tensor) -> Tensor:
    """State where a module was moved to, in float32 at least.

    A model in half precision, ``model.half()``, must not narrow what its filters know:
    a process noise of 1e-8 is none in float16.

    Args:
        state: As it was before.
        moved: As the module's ``_apply`` made it.

    Returns:
        ``moved``, or ``state`` on its device where it has become narrower than float32.
    """
    if not moved.is_floating_point() or torch.finfo(moved.dtype).bits >= 32:
        return moved
    return state.to(moved.device)


class FilterState(nn.Module):
    """Base of modules whose own floating-point buffers stay in float32 at least."""

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> FilterState:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, state in before.items():
            if state is not None:
                self._buffers[name] = in_full_precision(state, self._buffers[name])
        return self
