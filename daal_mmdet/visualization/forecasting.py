"""Figure of a comparison of forecasting losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ['Forecasts', 'Gains', 'draw_forecasts']

_COLORS = ('#6b7f99', '#b8860b', '#d1495b', '#2e8b57', '#7b52ab')
# Losses that forecast alike stay visible under one another. The next five curves have
# the colours again, and other styles.
_STYLES = ('-', '-', '--', '--', ':')
_NEXT_STYLES = ('--', ':', '-', '-.', '-.')
_GAIN_COLORS = ('#1f77b4', '#e07b39', '#555555', '#9467bd', '#17becf')
# The first five curves, the next five, ...
_GAIN_STYLES = ('-', '--', ':', '-.')
_TRUTH = '#222222'


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of one loss over the test part.

    Attributes:
        name: Its name in the legend.
        first: (N,) step of the first value of each forecast.
        values: (N, horizon) forecasts.
    """

    name: str
    first: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Gains:
    """Gain of one loss along its training targets.

    Attributes:
        name: Its name in the legend.
        targets: (T,) what the loss saw as truth.
        gain: (T,) K_k in [0, 1].
    """

    name: str
    targets: np.ndarray
    gain: np.ndarray


def draw_forecasts(
    series: np.ndarray,
    forecasts: Sequence[Forecasts],
    gains: Sequence[Gains],
    start: float = 0.0,
    label: str = 'value',
    title: str = '',
) -> Figure:
    """Draw forecasts of a series, and below them the gains of losses while training.

    Args:
        series: (T,) the whole series.
        forecasts: Forecasts of each loss, at least one.
        gains: Gains of losses that have one; empty leaves their panels out.
        start: Time of the first step; steps are 1 apart.
        label: Name of the values.
        title: Heading of the figure.

    Returns:
        A figure of its own, outside pyplot's state; save it with ``savefig``.

    Raises:
        ValueError: If there is no forecast, or one lies outside the series.
    """
    if not forecasts:
        raise ValueError('forecasts is empty: nothing to draw')
    for run in forecasts:
        begin, end = run.first.min(), run.first.max() + run.values.shape[1]
        if begin < 0 or end > len(series):
            raise ValueError(
                f'forecasts: those of {run.name!r} reach from step {begin} to {end}, '
                f'outside the series of {len(series)} steps'
            )
    figure = Figure(figsize=(11, 9 if gains else 4), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontweight='bold')
    if not gains:
        _draw_test_part(figure.subplots(), series, forecasts, start, label)
        return figure
    upper, lower = figure.subfigures(2, 1, height_ratios=[4, 5])
    _draw_test_part(upper.subplots(), series, forecasts, start, label)
    targets, curves = lower.subplots(2, 1, sharex=True, height_ratios=[2, 3])
    _draw_targets(targets, gains, start, label)
    _draw_gains(curves, gains, start)
    return figure


def _draw_test_part(
    axes: Axes,
    series: np.ndarray,
    forecasts: Sequence[Forecasts],
    start: float,
    label: str,
) -> None:
    begin = min(int(run.first.min()) for run in forecasts)
    horizon = forecasts[0].values.shape[1]
    end = max(int(run.first.max()) for run in forecasts) + horizon
    past = max(begin - horizon, 0)
    axes.plot(
        start + np.arange(past, end), series[past:end], color=_TRUTH, label='truth'
    )
    for first in forecasts[0].first:
        axes.axvline(start + first - 1, color='0.75', linestyle=':', linewidth=1)
    looks = zip(cycle(_COLORS), cycle(_STYLES + _NEXT_STYLES), strict=False)
    for run, (color, style) in zip(forecasts, looks, strict=False):
        for i, (first, values) in enumerate(zip(run.first, run.values, strict=True)):
            # A forecast starts at the last value that it knows.
            known = [series[first - 1]] if first else []
            steps = start + first - len(known) + np.arange(len(values) + len(known))
            axes.plot(
                steps,
                [*known, *values],
                linestyle=style,
                color=color,
                label=None if i else run.name,
            )
    axes.set(
        title=f'Test part: forecasts of {horizon} steps, each from a dotted line',
        ylabel=label,
        xlim=(start + past, start + end - 1),
    )
    axes.legend(loc='upper left', ncols=len(forecasts) + 1, fontsize=9)
    axes.set_ylim(top=axes.get_ylim()[1] + 0.15 * np.ptp(axes.get_ylim()))
    axes.grid(alpha=0.3)


def _gain_looks() -> Iterator[tuple[str, str]]:
    return cycle(product(_GAIN_STYLES, _GAIN_COLORS))


def _draw_targets(axes: Axes, gains: Sequence[Gains], start: float, label: str) -> None:
    drawn: list[np.ndarray] = []
    for run, (style, color) in zip(gains, _gain_looks(), strict=False):
        if not any(np.array_equal(run.targets, other) for other in drawn):
            axes.plot(
                start + np.arange(len(run.targets)),
                run.targets,
                style,
                color=color,
                linewidth=1.2,
            )
            drawn.append(run.targets)
    axes.set(title='Training targets as the losses see them', ylabel=label)
    axes.grid(alpha=0.3)


def _draw_gains(axes: Axes, gains: Sequence[Gains], start: float) -> None:
    for run, (style, color) in zip(gains, _gain_looks(), strict=False):
        steps = start + np.arange(len(run.gain))
        axes.plot(steps, run.gain, style, color=color, linewidth=1.4, label=run.name)
    axes.set(
        title='Gain $K_k$ along the training targets',
        xlabel='time',
        ylabel='$K_k$',
        ylim=(0, 1),
    )
    axes.legend(loc='upper center', ncols=2, fontsize=9)
    axes.grid(alpha=0.3)
