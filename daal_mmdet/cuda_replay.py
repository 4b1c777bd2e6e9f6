"""Fixed work on small tensors, replayed on a GPU as one CUDA graph.

Starting an operator takes the host longer than a GPU needs for a small matrix, and a
filter step is a hundred of them. Recorded once, they start as one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

__all__ = ['Replay', 'replayable', 'settings_of', 'value_with_gradient']

# Calls of one kind before it is recorded. The first ones load kernels, which must not
# happen in a recording, and kinds that never come back are not worth one.
_CALLS_BEFORE = 3
# A recording holds memory; work of ever new shapes is not recorded.
_MOST_RECORDINGS, _MOST_KINDS = 8, 64
_SWITCH = 'DAAL_CUDA_GRAPHS'


def replayable(tensor: Tensor) -> bool:
    """Whether work on this tensor can be recorded: on a GPU, not while compiling.

    Nowhere with ``DAAL_CUDA_GRAPHS=0`` in the environment.
    """
    return (
        not torch.compiler.is_compiling()
        and tensor.device.type == 'cuda'
        and os.environ.get(_SWITCH) != '0'
        and not torch.cuda.is_current_stream_capturing()
    )


def settings_of(module: torch.nn.Module) -> tuple[Hashable, ...]:
    """Public constants of a module and its parts, which a recording would freeze."""
    return tuple(
        value
        for part in module.modules()
        for name, value in vars(part).items()
        if not name.startswith('_')
        and (value is None or isinstance(value, bool | int | float | str | tuple))
    )


class Replay:
    """Runs one function, on a GPU as a recording once the call is a familiar one.

    The function must do the same in each call with equal keys: no reads of device
    values, no effects on the host, and of tensors it may use its inputs and those named
    as state, which it may change in place. What it returns is overwritten by the next
    call. A copy or a pickled one starts without recordings.
    """

    def __init__(self) -> None:
        self._calls: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(
        self,
        function: Callable[..., Any],
        inputs: tuple[Tensor, ...] = (),
        state: tuple[Tensor, ...] = (),
        settings: tuple[Hashable, ...] = (),
    ) -> Any:
        """Call ``function(*inputs)``, or replay what it did.

        Args:
            function: The same in each call, apart from ``settings``.
            inputs: Copied into the recording; not differentiated.
            state: Tensors that the function uses where they lie.
            settings: Hashable constants that the function depends on.

        Returns:
            What the function returns.

        Raises:
            RuntimeError: If the function does what a graph can not hold.
        """
        tensors = inputs + state
        if not tensors or not replayable(tensors[0]):
            return function(*inputs)
        kinds = tuple((t.shape, t.dtype, t.device) for t in tensors)
        key = settings, kinds, tuple(t.data_ptr() for t in state)
        recording = self._recordings.get(key)
        if recording is None:
            calls = self._calls.get(key, 0)
            full = len(self._recordings) == _MOST_RECORDINGS
            if full or calls < _CALLS_BEFORE:
                if calls or len(self._calls) < _MOST_KINDS:
                    self._calls[key] = calls + 1
                return function(*inputs)
            recording = _Recording(function, inputs, tensors[0].device)
            self._recordings[key] = recording
        return recording(inputs)

    def __reduce__(self) -> tuple[type[Replay], tuple[()]]:
        return Replay, ()


class _Recording:
    def __init__(
        self,
        function: Callable[..., Any],
        inputs: tuple[Tensor, ...],
        device: torch.device,
    ) -> None:
        self._inputs = tuple(t.detach().clone() for t in inputs)
        self._graph = torch.cuda.CUDAGraph()
        try:
            # A stream of its own: PyTorch's own one stays on the device of the first
            # recording. Other threads, such as the one that pins batches, go on using
            # the device.
            with (
                torch.cuda.device(device),
                torch.cuda.graph(
                    self._graph,
                    stream=torch.cuda.Stream(device),  # type: ignore[no-untyped-call]
                    capture_error_mode='thread_local',
                ),
            ):
                self._outputs = function(*self._inputs)
        except RuntimeError as error:
            # Going on without it is no way out: PyTorch's random numbers stay broken.
            raise RuntimeError(
                f'a CUDA graph could not be recorded; {_SWITCH}=0 in the environment '
                f'goes without graphs: {error}'
            ) from error

    def __call__(self, inputs: tuple[Tensor, ...]) -> Any:
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given.detach())
        self._graph.replay()
        return self._outputs


def value_with_gradient(
    replay: Replay,
    function: Callable[..., Tensor],
    x: Tensor,
    constants: tuple[Tensor, ...] = (),
    settings: tuple[Hashable, ...] = (),
) -> Tensor:
    """``function(x, *constants)``, a scalar, whose gradient is found along with it.

    Args:
        replay: Of this function.
        function: Differentiable in x; see :class:`Replay`.
        x: Floating point; computed in float32 at least.
        constants: Further inputs, not differentiated.
        settings: As for :class:`Replay`.

    Returns:
        The scalar.

    Raises:
        RuntimeError: When differentiated twice.
    """
    value: Tensor = _WithGradient.apply(x, replay, function, constants, settings)  # type: ignore[no-untyped-call]
    return value


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        replay: Replay,
        function: Callable[..., Tensor],
        constants: tuple[Tensor, ...],
        settings: tuple[Hashable, ...],
    ) -> Tensor:
        def evaluate(x: Tensor, *constants: Tensor) -> tuple[Tensor, Tensor]:
            # Half precision can't hold a gradient that AMP has not scaled yet.
            leaf = x.detach().to(torch.promote_types(x.dtype, torch.float32))
            with torch.enable_grad():
                value = function(leaf.requires_grad_(), *constants)
                (gradient,) = torch.autograd.grad(value, leaf)
            return value.detach(), gradient

        value: Tensor
        value, gradient = replay(evaluate, (x, *constants), settings=settings)
        ctx.dtype = x.dtype
        ctx.save_for_backward(gradient.clone())
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        # Gradients are only enabled here under create_graph=True. The saved one has no
        # graph, so that a second derivative would silently lack its terms.
        if torch.is_grad_enabled():
            raise RuntimeError('a replayed value can not be differentiated twice')
        (gradient,) = ctx.saved_tensors
        return (grad_value * gradient).to(ctx.dtype), None, None, None, None
