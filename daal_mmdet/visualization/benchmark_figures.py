"""Figures of a benchmark: curves over the training, AP per class, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from daal_mmdet.visualization.class_ticks import set_class_ticks
from daal_mmdet.visualization.running_mean import running_mean

__all__ = [
    'Difference',
    'Panel',
    'SeedCurves',
    'draw_class_ap',
    'draw_differences',
    'draw_panels',
]

_FIRST_COLOR = '#303030'
# The strong colours, then their light twins.
_PALETTE = colormaps['tab20'].colors[::2] + colormaps['tab20'].colors[1::2]
_BETTER, _WORSE = '#e8f4ea', '#fbecec'


@dataclass(frozen=True)
class SeedCurves:
    """One quantity of a variant over its training.

    Attributes:
        steps: (k,) iterations or epochs.
        values: (seeds, k).
    """

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Panel:
    """One quantity of several variants.

    Attributes:
        title: Its name.
        curves: By the variant's name; a variant without the quantity is left out.
        log_scale: Whether the vertical axis is logarithmic.
        smooth: Whether to draw a running mean.
    """

    title: str
    curves: Mapping[str, SeedCurves]
    log_scale: bool = False
    smooth: bool = False


@dataclass(frozen=True)
class Difference:
    """Paired differences of a variant to the baseline.

    Attributes:
        pairs: (n,) one for each seed.
        interval: Of their mean; None for a single pair.
    """

    pairs: np.ndarray
    interval: tuple[float, float] | None


def draw_panels(
    panels: Sequence[Panel],
    variants: Sequence[str],
    title: str,
    xlabel: str = 'iteration',
) -> Figure:
    """Draw curves of several variants: mean over seeds, and a band from min to max.

    Args:
        panels: At least one; those without a curve are left out.
        variants: Names in the order of their colours, the same in every figure of a
            benchmark.
        title: Headline.
        xlabel: What the curves' steps are.

    Raises:
        ValueError: If no panel has a curve.
    """
    panels = [panel for panel in panels if panel.curves]
    if not panels:
        raise ValueError('panels: expected at least one with a curve, got none')
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = _figure(6.5 * columns, 3.6 * rows + 1.2, title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    colors = _colors(variants)
    for axes, panel in zip(grid, panels, strict=False):
        for name in (name for name in variants if name in panel.curves):
            _draw_curve(axes, panel, name, colors[name])
        axes.set(title=panel.title, xlabel=xlabel)
        axes.grid(alpha=0.3, which='both' if panel.log_scale else 'major')
        if panel.log_scale:
            axes.set_yscale('log')
            # The decades alone would leave most loss curves without a number.
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            axes.yaxis.set_major_formatter('{x:.3g}')
            axes.yaxis.set_minor_formatter('{x:.3g}')
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    shown = {name for panel in panels for name in panel.curves}
    _legend(figure, [name for name in variants if name in shown], colors)
    return figure


def draw_class_ap(
    class_ap: Mapping[str, np.ndarray],
    classes: Sequence[str],
    counts: Sequence[int] | None,
    variants: Sequence[str],
    title: str,
) -> Figure:
    """Draw the AP of each class: mean over seeds, and a line from min to max.

    Args:
        class_ap: (seeds, C) by the variant's name; NaN where there is no ground truth.
        classes: C names.
        counts: Training boxes of each class, which order them; None keeps the order.
        variants: Names in the order of their colours.
        title: Headline.

    Raises:
        ValueError: If lengths disagree.
    """
    lengths = {'classes': len(classes)}
    lengths |= {f'class_ap of {name}': v.shape[1] for name, v in class_ap.items()}
    lengths |= {} if counts is None else {'counts': len(counts)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f'one entry for each class is needed, got {lengths}')
    order = np.arange(len(classes))
    if counts is not None:
        order = np.argsort(-np.asarray(counts), kind='stable')
    figure = _figure(float(np.clip(1.3 * len(classes), 8, 22)), 5.2, title)
    axes = figure.subplots()
    colors = _colors(variants)
    crowded = len(classes) > 20
    for index, (name, values) in enumerate(class_ap.items()):
        known = ~np.isnan(values).any(axis=0)[order]
        shown = values[:, order[known]]
        mean = shown.mean(axis=0)
        shift = 0.7 * ((index + 0.5) / len(class_ap) - 0.5)
        axes.errorbar(
            np.flatnonzero(known) + shift,
            mean,
            yerr=np.abs([shown.min(axis=0) - mean, shown.max(axis=0) - mean]),
            fmt='o',
            color=colors[name],
            markersize=3.5 if crowded else 6,
            linewidth=1 if crowded else 1.8,
        )
    for edge in np.arange(len(classes) - 1) + 0.5:
        axes.axvline(edge, color='#dddddd', linewidth=0.8)
    below = 'class' if counts is None else 'class and its number of training boxes'
    axes.set(ylabel='AP', xlabel=below)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, axis='y')
    _legend(figure, list(class_ap), colors)
    ordered = None if counts is None else [counts[i] for i in order]
    set_class_ticks(axes, figure, [classes[i] for i in order], ordered)
    return figure


def draw_differences(
    differences: Mapping[str, Mapping[str, Difference]],
    variants: Sequence[str],
    baseline: str,
    title: str,
) -> Figure:
    """Draw each variant's difference to the baseline: seeds, mean and interval.

    Args:
        differences: By metric and variant.
        variants: Names in the order of their colours.
        baseline: What they are compared with.
        title: Headline.

    Raises:
        ValueError: If there is no metric.
    """
    if not differences:
        raise ValueError('differences: expected at least one metric, got none')
    rows = [name for name in variants if any(name in v for v in differences.values())]
    figure = _figure(
        2.6 + 4.2 * len(differences), 1.8 + 0.45 * max(len(rows), 2), title
    )
    grid = figure.subplots(1, len(differences), sharey=True, squeeze=False)[0]
    colors = _colors(variants)
    for axes, (metric, by_variant) in zip(grid, differences.items(), strict=True):
        for row, name in enumerate(rows):
            if name in by_variant:
                _draw_difference(axes, by_variant[name], row, colors[name])
        widest = max(abs(limit) for limit in axes.get_xlim())
        axes.set_xlim(-widest, widest)
        axes.axvspan(0, widest, color=_BETTER, zorder=0)
        axes.axvspan(-widest, 0, color=_WORSE, zorder=0)
        axes.axvline(0, color=_FIRST_COLOR, linewidth=1)
        axes.set(title=metric, xlabel=f'difference to {baseline}')
        axes.locator_params(axis='x', nbins=5)
        axes.grid(alpha=0.3, axis='x')
    grid[0].set_yticks(range(len(rows)), rows)
    grid[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _draw_curve(axes: Axes, panel: Panel, name: str, color: str) -> None:
    curves = panel.curves[name]
    values = np.asarray(curves.values, np.float64)
    if panel.smooth:
        values = np.array([running_mean(row) for row in values])
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(curves.steps, low, high, color=color, alpha=0.12, linewidth=0)
    # A single point is no line.
    marker = 'o' if len(curves.steps) == 1 else None
    mean = values.mean(axis=0)
    axes.plot(curves.steps, mean, color=color, linewidth=1.8, marker=marker)


def _draw_difference(axes: Axes, difference: Difference, row: int, color: str) -> None:
    pairs = np.asarray(difference.pairs, np.float64)
    axes.plot(pairs, np.full(len(pairs), row + 0.22), 'o', color=color, alpha=0.4, ms=4)
    if difference.interval is not None:
        axes.plot(difference.interval, (row, row), color=color, linewidth=2.2)
    axes.plot(pairs.mean(), row, 'D', color=color, markersize=7)


def _colors(variants: Sequence[str]) -> dict[str, str]:
    """The first one dark, the others as the palette has them."""
    return {
        name: _PALETTE[(index - 1) % len(_PALETTE)] if index else _FIRST_COLOR
        for index, name in enumerate(variants)
    }


def _legend(figure: Figure, names: Sequence[str], colors: Mapping[str, str]) -> None:
    axes = figure.axes[0]
    handles = [axes.plot([], [], 'o-', color=colors[name])[0] for name in names]
    figure.legend(
        handles,
        names,
        loc='outside lower center',
        ncols=min(len(names), 4),
        frameon=False,
    )


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontweight='bold', wrap=True)
    return figure
