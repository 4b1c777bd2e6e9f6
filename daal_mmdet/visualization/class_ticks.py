"""Names of classes along the horizontal axis of a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ['set_class_ticks', 'short_name']

_LONGEST_NAME = 20
# Of a class's share of the axis, what its name may take.
_FILLED = 0.95


def short_name(name: str) -> str:
    """A name of at most 20 characters, with an ellipsis for what is left out."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + '…'


def set_class_ticks(
    axes: Axes,
    figure: Figure,
    names: Sequence[str],
    counts: Sequence[int] | None = None,
) -> None:
    """Name the places 0, 1, ... of the axis, upright where the names stand too close.

    Args:
        axes: Of ``figure``, or of a part of it; its other contents should be there.
        figure: It is laid out, to learn how wide its axes are.
        names: C > 0 names, the long ones are cut short.
        counts: C numbers to write below the names; None for none.
    """
    labels = [short_name(name) for name in names]
    if counts is not None:
        labels = [
            f'{label}\n{count}' for label, count in zip(labels, counts, strict=True)
        ]
    places = range(len(labels))
    size = 6 if len(labels) > 40 else 9
    axes.set_xticks(places, labels, fontsize=size)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    figure.draw_without_rendering()
    widest = max(tick.get_window_extent().width for tick in axes.get_xticklabels())
    share = axes.get_window_extent().width / len(labels)
    if widest > _FILLED * share:
        upright = [label.replace('\n', ' ') for label in labels]
        axes.set_xticks(places, upright, fontsize=size, rotation=90)
