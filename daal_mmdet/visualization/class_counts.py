"""Figure of the class counts of a data set and of a subset of it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from daal_mmdet.datasets.subset import power_law_exponent

__all__ = ['draw_class_counts']

_SOURCE, _SUBSET, _CURVE = '#b8c4d0', '#2a6f97', '#d1495b'
# Names of more classes than this could not be read.
_MOST_NAMES = 60


def draw_class_counts(
    names: tuple[str, ...],
    source: np.ndarray,
    subset: np.ndarray,
    targets: np.ndarray | None = None,
    title: str = '',
) -> Figure:
    """Draw the instances of each class, most frequent first, in two data sets.

    Args:
        names: Names of the C classes; shown for 60 at most.
        source: (C,) instances in the whole set.
        subset: (C,) instances in the subset.
        targets: (C,) counts that were aimed for; None draws none.
        title: Heading of the figure.

    Returns:
        A figure of its own, outside pyplot's state; save it with ``savefig``.

    Raises:
        ValueError: If the arrays do not have one entry a class.
    """
    for key, counts in (('source', source), ('subset', subset), ('targets', targets)):
        if counts is not None and len(counts) != len(names):
            raise ValueError(
                f'{key}: expected {len(names)} counts, one a class, got {len(counts)}'
            )
    order = np.argsort(-source, kind='stable')
    named = len(names) <= _MOST_NAMES
    width = min(max(6.0, 0.2 * len(names)), 13.0)
    figure = Figure(figsize=(width, 4.6 if named else 4.0), layout='constrained')
    FigureCanvasAgg(figure)
    axes: Axes = figure.subplots()
    place = np.arange(len(names))
    # On a logarithmic axis a bar from 0 has no length.
    axes.bar(
        place,
        source[order] - 0.5,
        0.9,
        bottom=0.5,
        color=_SOURCE,
        label=f'whole set: {source.sum():,} instances',
    )
    exponent = power_law_exponent(subset)
    fitted = '' if np.isnan(exponent) else f', exponent {exponent:.2f}'
    axes.bar(
        place,
        np.maximum(subset[order] - 0.5, 0),
        0.55,
        bottom=0.5,
        color=_SUBSET,
        label=f'subset: {subset.sum():,} instances{fitted}',
    )
    if targets is not None:
        shown = np.where(targets[order] > 0, targets[order], np.nan)
        axes.plot(place, shown, color=_CURVE, lw=1.6, label='aimed for')
    axes.set_yscale('log')
    axes.set_ylim(0.5, max(source.max(initial=1), 1) * 2)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylabel('instances')
    if named:
        axes.set_xticks(place, [names[i] for i in order], rotation=90, fontsize=7)
    else:
        axes.set_xlabel(f'the {len(names)} classes, most frequent first')
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(axis='y', color='#e5e5e5', lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8)
    if title:
        axes.set_title(title, fontsize=10, loc='left')
    return figure
