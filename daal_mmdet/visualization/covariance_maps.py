"""Figure of the covariance that is tracked for a box loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ['draw_covariance']

_UNMEASURED = '#d9d9d9'
# Queries and classes beyond these are no longer told apart in a picture.
_MAX_LABELS = 30


def draw_covariance(
    deviations: Sequence[np.ndarray],
    measured: Sequence[np.ndarray],
    title: str = '',
    template_names: Sequence[str] | None = None,
) -> Figure:
    """Draw how badly each place of a head knows its boxes.

    Heads with a grid of cells get a map for each level and template, over the image
    plane; heads without (RoI heads, DETR) one picture of levels by classes or queries.

    Args:
        deviations: For each level, (height, width, templates), the geometric mean of
            the four standard deviations, det(P)^(1/8).
        measured: For each level, whether the place was ever measured, same shape; the
            others are grey.
        title: Headline.
        template_names: Names of the templates, for levels that all have as many.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no level.
    """
    if not deviations:
        raise ValueError('deviations: expected at least one level, got none')
    shown = [
        np.where(known, deviation, np.nan)
        for deviation, known in zip(deviations, measured, strict=True)
    ]
    # Without rows to draw a map of, cells of the one row and templates stand in a line.
    if all(level.shape[0] == 1 for level in shown):
        figure = _draw_lines([level.reshape(-1) for level in shown], template_names)
    else:
        figure = _draw_maps(shown, template_names)
    figure.suptitle(title, fontweight='bold')
    return figure


def _draw_maps(levels: Sequence[np.ndarray], names: Sequence[str] | None) -> Figure:
    columns = max(level.shape[2] for level in levels)
    height, width = levels[0].shape[:2]
    cell = 1.7
    figure = _figure(
        cell * columns + 1.4, cell * min(height / width, 2.0) * len(levels) + 1.2
    )
    axes = figure.subplots(len(levels), columns, squeeze=False)
    low, high = _limits(levels)
    for row, level in enumerate(levels):
        for column in range(columns):
            axis = axes[row, column]
            axis.set_xticks([])
            axis.set_yticks([])
            if column >= level.shape[2]:
                axis.set_visible(False)
                continue
            image = axis.imshow(
                level[..., column], cmap='viridis', vmin=low, vmax=high, aspect='auto'
            )
            axis.set_facecolor(_UNMEASURED)
            if row == 0:
                axis.set_title(names[column] if names else f'template {column}')
            if column == 0:
                size = f'{level.shape[0]} x {level.shape[1]}'
                axis.set_ylabel(f'level {row}\n{size}')
    bar = figure.colorbar(image, ax=axes.ravel().tolist(), fraction=0.05, pad=0.02)
    bar.set_label('standard deviation of a residual (grey: never measured)')
    return figure


def _draw_lines(levels: Sequence[np.ndarray], names: Sequence[str] | None) -> Figure:
    columns = max(len(level) for level in levels)
    table = np.full((len(levels), columns), np.nan)
    for row, level in enumerate(levels):
        table[row, : len(level)] = level
    figure = _figure(min(max(5.0, 0.35 * columns + 2), 11), 0.5 * len(levels) + 1.9)
    axis = figure.subplots()
    low, high = _limits(levels)
    image = axis.imshow(table, cmap='viridis', vmin=low, vmax=high, aspect='auto')
    axis.set_facecolor(_UNMEASURED)
    axis.set_yticks(range(len(levels)), [f'level {row}' for row in range(len(levels))])
    if names is not None and len(names) == columns <= _MAX_LABELS:
        axis.set_xticks(range(columns), names, rotation=45, ha='right')
    else:
        axis.set_xlabel('class or query')
    bar = figure.colorbar(image, ax=axis)
    bar.set_label('standard deviation\n(grey: never measured)')
    return figure


def _limits(levels: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([level[np.isfinite(level)] for level in levels])
    if not len(values):
        return 0.0, 1.0
    # A few places that were measured once would take the whole range.
    low, high = np.quantile(values, (0.02, 0.98))
    return float(low), float(high)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure
