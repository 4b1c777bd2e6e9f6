"""Base of the adapters: overhear a head and announce the calls of its box losses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from daal_mmdet.hooks.covariance_tracker import Announcement, CovarianceTracker

__all__ = ['Call', 'HeadAdapter', 'Places', 'is_foreground']


def is_foreground(labels: Tensor, num_classes: int) -> Tensor:
    """Which labels are those of a class, not of background or ignored rows, bool."""
    return (labels >= 0) & (labels < num_classes)


class Places(NamedTuple):
    """Where in one level some positives are.

    Attributes:
        level: Key of the level.
        templates: Number of templates of the level.
        grid: (height, width) of the level now.
        template: (M,), int64.
        y: Row, (M,), int64.
        x: Column, (M,), int64.
    """

    level: int
    templates: int
    grid: tuple[int, int]
    template: Tensor
    y: Tensor
    x: Tensor


class Call(NamedTuple):
    """A call of the losses that is about to come.

    Attributes:
        num_rows: Rows of the call.
        rows: The positives among them, (M,), int64; None if all rows are positives.
        places: Where the positives are, one level after the other.
        order: Which positive each of them is, (M,), int64; None if they are in order.
        measured: Whether the residuals are new, and not those of a call before.
    """

    num_rows: int
    rows: Tensor | None
    places: Sequence[Places]
    order: Tensor | None = None
    measured: bool = True


class HeadAdapter:
    """Listens to one method of a head and turns the rows to come into slots.

    Subclasses say which method, and override :meth:`before` or :meth:`after`.

    Args:
        head: The head.
        trackers: Trackers of its losses, all called with the same positives.
        model: The whole detector.

    Attributes:
        method: Name of the method of the head that is overheard.
        relies_on: Methods of the head that must be mmdet's own.
        serves: Losses of the head whose rows it knows.
        extra_calls: Whether the head also calls its losses on rows that have no slot.
    """

    method: str
    relies_on: ClassVar[tuple[str, ...]]
    serves: ClassVar[tuple[str, ...]] = ('loss_bbox',)
    extra_calls: ClassVar[bool] = False

    def __init__(
        self, head: nn.Module, trackers: Sequence[CovarianceTracker], model: nn.Module
    ) -> None:
        self.head = head
        self.trackers = trackers
        self._handle = head.register_forward_hook(_tell_outputs)

    def __reduce__(self) -> tuple:
        # The copy of a head has no adapter, and its overheard method finds none.
        return type(None), ()

    def attach(self) -> None:
        """Start to listen, in place of what a training that was broken off left."""
        left: HeadAdapter | None = getattr(self.head, 'covariance_adapter', None)
        if left is not None:
            left.detach()
        for tracker in self.trackers:
            tracker.loss.tracker = tracker
        self.head.covariance_adapter = self
        listening = MethodType(_Overheard(self.method), self.head)
        setattr(self.head, self.method, listening)

    def detach(self) -> None:
        """Leave the head and its losses as they were."""
        self._handle.remove()
        if getattr(self.head, 'covariance_adapter', None) is not self:
            return
        for tracker in self.trackers:
            tracker.loss.tracker = None
        delattr(self.head, self.method)
        del self.head.covariance_adapter

    def outputs(self, outputs: Any) -> None:
        """See what the head's forward has returned."""

    def before(self, arguments: Mapping[str, Any]) -> None:
        """See the arguments of the method."""

    def after(self, arguments: Mapping[str, Any], result: Any) -> None:
        """See what the method has returned."""

    def announce(self, calls: Sequence[Call], skip_empty: bool = False) -> None:
        """Announce the coming calls to all active trackers.

        If no hook serves these any more, since their training was broken off and the
        model is in another, the head is left alone, and its losses warn of that.

        Args:
            calls: Calls for the same levels on all ranks, with positives or without.
            skip_empty: Whether calls without rows will not come.
        """
        if any(tracker.is_left() for tracker in self.trackers):
            self.detach()
            return
        for tracker in self.active_trackers():
            tracker.announce(
                [
                    Announcement(
                        call.num_rows, call.rows, _slots(tracker, call), call.measured
                    )
                    for call in calls
                ],
                skip_empty,
            )

    def active_trackers(self) -> Sequence[CovarianceTracker]:
        """Trackers whose losses will be called."""
        return self.trackers


def _slots(tracker: CovarianceTracker, call: Call) -> Tensor:
    slots = torch.cat(
        [
            tracker.bank.slots(
                tracker.level(place.level, place.templates, place.grid),
                place.template,
                place.y,
                place.x,
                place.grid,
            )
            for place in call.places
        ]
    )
    if call.order is None:
        return slots
    return torch.empty_like(slots).index_copy_(0, call.order, slots)


class _Overheard:
    """A method of a head that tells the head's adapter what passes."""

    def __init__(self, name: str) -> None:
        self.name = name
        # A pickled method is looked up by it, and found in the class.
        self.__name__ = name

    def __call__(self, head: nn.Module, *args: Any, **kwargs: Any) -> Any:
        method = getattr(type(head), self.name)
        adapter: HeadAdapter | None = getattr(head, 'covariance_adapter', None)
        if adapter is None:
            return method(head, *args, **kwargs)
        bound = inspect.signature(method).bind(head, *args, **kwargs)
        adapter.before(bound.arguments)
        result = method(head, *args, **kwargs)
        adapter.after(bound.arguments, result)
        return result


def _tell_outputs(head: nn.Module, args: tuple, outputs: Any) -> None:
    # No bound method: a copy of the head would copy the adapter with it.
    adapter: HeadAdapter | None = getattr(head, 'covariance_adapter', None)
    if adapter is not None:
        adapter.outputs(outputs)
