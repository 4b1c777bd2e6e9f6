"""Copies of state that a compiled loss keeps for its backward pass."""

import torch
from torch import Tensor

__all__ = ['snapshot']


def snapshot(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy while ``torch.compile`` traces; not differentiated.

    For what is computed from filter state that may change in place before the backward
    pass. A compiled graph likes to keep the state and to compute from it again in
    that pass; the copy is an operator that it can not repeat. Before PyTorch 2.4, which
    has no such operators, it is ``tensor`` itself.
    """
    if torch.compiler.is_compiling() and _copy is not None:
        copy: Tensor = _copy(tensor.detach())
        return copy
    return tensor


_copy = None
if hasattr(torch.library, 'custom_op'):

    @torch.library.custom_op('daal_mmdet::snapshot', mutates_args=())
    def _copy(tensor: Tensor) -> Tensor:
        return tensor.clone()

    @_copy.register_fake
    def _(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor)
