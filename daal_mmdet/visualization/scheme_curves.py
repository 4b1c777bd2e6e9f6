"""Loss curves of the schemes of one comparison, in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from daal_mmdet.visualization.running_mean import running_mean

__all__ = ['SCHEME_COLORS', 'SchemeCurves', 'draw_scheme_curves']

SCHEME_COLORS = ('#444444', '#d1495b', '#e0a030', '#2e8b57', '#7b52ab', '#1f77b4')
# Schemes that train alike stay visible under one another.
_STYLES = ('-', '-', '--', ':', '-.', '-')


@dataclass(frozen=True)
class SchemeCurves:
    """What was logged while one scheme trained.

    Attributes:
        name: Name in the legend.
        iterations: (k,) iterations.
        total: (runs, k) the whole loss.
        task: (runs, k) the task term alone.
        factor: (runs, k) lambda, the factor of the nuclear-norm term; None where the
            scheme has no such term.
        bnm: (runs, k) the nuclear-norm term; None likewise.
    """

    name: str
    iterations: np.ndarray
    total: np.ndarray
    task: np.ndarray
    factor: np.ndarray | None = None
    bnm: np.ndarray | None = None


def draw_scheme_curves(schemes: Sequence[SchemeCurves], title: str = '') -> Figure:
    """Draw loss, task term, nuclear-norm term and its factor over the iterations.

    A line is the median over runs, smoothed over a tenth of the training; the band
    behind it holds the middle half of the runs.

    Args:
        schemes: At least one.
        title: Heading of the figure.

    Returns:
        A figure of its own, outside pyplot's state; save it with ``savefig``.

    Raises:
        ValueError: If there is no scheme, or the length of a curve differs from that
            of its iterations.
    """
    if not schemes:
        raise ValueError('schemes is empty: nothing to draw')
    for scheme in schemes:
        for name in ('total', 'task', 'factor', 'bnm'):
            curve = getattr(scheme, name)
            expected = len(scheme.iterations)
            if curve is not None and curve.shape[1:] != (expected,):
                raise ValueError(
                    f'{name} of {scheme.name!r}: expected shape (runs, {expected}), '
                    f'got {curve.shape}'
                )
    figure = Figure(figsize=(12, 7), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontweight='bold')
    panels = figure.subplots(2, 2, sharex=True)
    for axes, name, heading, label in (
        (panels[0, 0], 'total', 'Loss', 'task + λ · BNM'),
        (panels[0, 1], 'task', 'Task term alone', 'squared error of the map'),
        (panels[1, 0], 'bnm', 'Nuclear-norm term alone', 'BNM'),
        (panels[1, 1], 'factor', 'Its factor', 'λ'),
    ):
        for scheme, color, style in zip(schemes, SCHEME_COLORS, _STYLES, strict=False):
            curve = getattr(scheme, name)
            if curve is not None:
                _draw(axes, scheme.iterations, curve, scheme.name, color, style)
        axes.set_title(heading)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    for axes in panels[0]:
        values = [line.get_ydata() for line in axes.get_lines()]
        if min(map(np.min, values), default=0) > 0:
            axes.set_yscale('log')
    panels[1, 1].set_yscale('symlog', linthresh=0.05)
    for axes in panels[1]:
        axes.set_xlabel('iteration')
    panels[0, 0].legend()
    return figure


def _draw(
    axes: Axes,
    iterations: np.ndarray,
    curves: np.ndarray,
    name: str,
    color: str,
    style: str,
) -> None:
    low, middle, high = (
        running_mean(quartile)
        for quartile in np.percentile(curves, [25, 50, 75], axis=0)
    )
    if len(curves) > 1:
        axes.fill_between(iterations, low, high, color=color, alpha=0.12, linewidth=0)
    axes.plot(iterations, middle, color=color, linestyle=style, label=name)
