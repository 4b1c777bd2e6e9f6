"""One figure that compares trained detectors: losses, AP per class, detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from mmcv.ops import nms

from daal_mmdet.visualization.class_ticks import set_class_ticks, short_name
from daal_mmdet.visualization.running_mean import running_mean

__all__ = ['Boxes', 'Example', 'TrainedRun', 'draw_comparison']

_RUN_COLORS = ('#6b7f99', '#d1495b', '#2e8b57', '#b8860b', '#7b52ab')
_GROUP_SHADES = {'many': '#eef3f8', 'medium': '#f7f3e6', 'few': '#fbe9e7'}
_FEW_COLOR, _OTHER_COLOR = '#ff7f0e', '#ffffff'
_MATCH_IOU = 0.5
_WIDTH = 14.0
# More boxes than these, the best ones, can't be told apart on a small picture.
_MAX_BOXES = 15


@dataclass(frozen=True)
class Boxes:
    """Boxes on one image.

    Attributes:
        xyxy: (n, 4) corners in pixels of the image.
        labels: (n,) class indices.
        scores: (n,) scores in [0, 1]; None for ground truth.
    """

    xyxy: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class Example:
    """An image with its ground truth and the detections of each run.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        truth: Ground-truth boxes.
        detections: One entry for each run, in the order of the runs.
    """

    image: np.ndarray
    truth: Boxes
    detections: tuple[Boxes, ...]


@dataclass(frozen=True)
class TrainedRun:
    """What the figure shows of one training.

    Attributes:
        name: The run's name in legends.
        iterations: (k,) iterations at which the losses were logged.
        losses: Logged values (k,) by name, e.g. ``loss_cls``.
        class_ap: (C,) AP of each class in [0, 1]; NaN where it can't be measured.
        group_ap: AP by group of classes, e.g. ``few``; NaN where it can't be measured.
    """

    name: str
    iterations: np.ndarray
    losses: dict[str, np.ndarray]
    class_ap: np.ndarray
    group_ap: dict[str, float]


def draw_comparison(
    runs: Sequence[TrainedRun],
    classes: Sequence[str],
    train_counts: Sequence[int],
    groups: Sequence[str],
    examples: Sequence[Example],
    title: str,
    min_score: float = 0.3,
) -> Figure:
    """Draw loss curves, AP per class and example detections of several runs.

    Args:
        runs: The runs to compare, at least one and no more than five.
        classes: C class names.
        train_counts: (C,) number of training boxes of each class.
        groups: (C,) group of each class: ``few``, ``medium`` or ``many``.
        examples: Images for the lower half; empty leaves it out.
        title: Heading of the figure.
        min_score: Only detections of a higher score are drawn: of those on one object,
            whatever their classes, the best, and no more than the 15 best of an image.

    Returns:
        A figure of its own, outside pyplot's state; save it with ``savefig``.

    Raises:
        ValueError: If there are none or too many runs, or if lengths disagree.
    """
    if not runs:
        raise ValueError('runs is empty: nothing to compare')
    if len(runs) > len(_RUN_COLORS):
        raise ValueError(f'runs: expected {len(_RUN_COLORS)} at most, got {len(runs)}')
    lengths = {
        'classes': len(classes),
        'train_counts': len(train_counts),
        'groups': len(groups),
    }
    lengths |= {f'class_ap of {run.name}': len(run.class_ap) for run in runs}
    if len(set(lengths.values())) != 1:
        raise ValueError(f'one entry for each class is needed, got {lengths}')
    for example in examples:
        if len(example.detections) != len(runs):
            raise ValueError(
                f'an example has detections of {len(example.detections)} '
                f'runs, expected {len(runs)}'
            )
    lower = _height_of_examples(examples, len(runs) + 1) if examples else 0.0
    figure = Figure(figsize=(_WIDTH, 5 + lower), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, fontweight='bold')
    if examples:
        upper, bottom = figure.subfigures(2, 1, height_ratios=[5, lower])
    else:
        upper = figure.subfigures(1, 1)
    losses, bars = upper.subplots(1, 2, width_ratios=[1, 2])
    _draw_losses(losses, runs)
    _draw_class_ap(bars, figure, runs, classes, train_counts, groups)
    if examples:
        _draw_examples(bottom, runs, classes, groups, examples, min_score)
    return figure


def _height_of_examples(examples: Sequence[Example], rows: int) -> float:
    """Inches that the rows of pictures need at the figure's width."""
    tallest = max(e.image.shape[0] / e.image.shape[1] for e in examples)
    return rows * (_WIDTH / max(len(examples), 4) * tallest + 0.12) + 0.8


def _draw_losses(axes: Axes, runs: Sequence[TrainedRun]) -> None:
    names = list(dict.fromkeys(name for run in runs for name in run.losses))
    styles = cycle(('-', '--', ':', '-.'))
    looks = list(zip(names, styles, strict=False))
    for run, color in zip(runs, _RUN_COLORS, strict=False):
        for name, style in looks:
            if name not in run.losses:
                continue
            values = np.asarray(run.losses[name], np.float64)
            axes.plot(run.iterations, values, color=color, alpha=0.2, linewidth=1)
            axes.plot(
                run.iterations,
                running_mean(values),
                style,
                color=color,
                linewidth=2,
                label=f'{run.name}: {name}',
            )
    axes.set(
        title='Training losses',
        xlabel='iteration',
        ylabel='loss (log scale)',
        yscale='log',
    )
    axes.grid(alpha=0.3, which='both')
    axes.legend(fontsize=9)


def _draw_class_ap(
    axes: Axes,
    figure: Figure,
    runs: Sequence[TrainedRun],
    classes: Sequence[str],
    train_counts: Sequence[int],
    groups: Sequence[str],
) -> None:
    # A group may be one by images, or end amid equal counts; each is one span here.
    ranks = [list(_GROUP_SHADES).index(group) for group in groups]
    order = np.lexsort((-np.asarray(train_counts), ranks))
    width = 0.8 / len(runs)
    positions = np.arange(len(order))
    for index, (run, color) in enumerate(zip(runs, _RUN_COLORS, strict=False)):
        offset = (index - (len(runs) - 1) / 2) * width
        axes.bar(
            positions + offset,
            np.nan_to_num(run.class_ap[order]),
            width,
            color=color,
            label=run.name,
        )
    tallest = max(float(np.nan_to_num(run.class_ap).max()) for run in runs)
    top = max(tallest, 0.05) * 1.3
    for group, shade in _GROUP_SHADES.items():
        inside = positions[[groups[i] == group for i in order]]
        if not len(inside):
            continue
        axes.axvspan(inside.min() - 0.5, inside.max() + 0.5, color=shade, zorder=0)
        lines = [f'{group} classes'] + [
            f'{run.name} {run.group_ap[group]:.3f}'
            for run in runs
            if group in run.group_ap
        ]
        axes.text(
            inside.mean(),
            top * 0.98,
            '\n'.join(lines),
            ha='center',
            va='top',
            fontsize=10,
        )
    axes.set(
        title='AP of each class, by number of training boxes',
        ylabel='AP',
        xlabel='class and its number of training boxes',
        ylim=(0, top),
    )
    axes.grid(alpha=0.3, axis='y')
    axes.legend(loc='center right', fontsize=10)
    set_class_ticks(
        axes, figure, [classes[i] for i in order], [train_counts[i] for i in order]
    )


def _draw_examples(
    figure: SubFigure,
    runs: Sequence[TrainedRun],
    classes: Sequence[str],
    groups: Sequence[str],
    examples: Sequence[Example],
    min_score: float,
) -> None:
    titles = ['ground truth', *(run.name for run in runs)]
    grid = figure.subplots(len(titles), len(examples), squeeze=False)
    for column, example in enumerate(examples):
        for row, boxes in enumerate((example.truth, *example.detections)):
            axes = grid[row, column]
            axes.imshow(example.image)
            axes.set(xticks=[], yticks=[])
            _draw_boxes(axes, boxes, example, classes, groups, min_score)
    for row, name in enumerate(titles):
        grid[row, 0].set_ylabel(name, fontsize=12, fontweight='bold')
    figure.suptitle(
        f'Best detection of each place, with a score above {min_score:g}, '
        'on validation images that hold objects of the few classes',
        fontsize=12,
    )
    figure.legend(
        handles=[
            Patch(facecolor=_FEW_COLOR, edgecolor='black', label='few class'),
            Patch(facecolor=_OTHER_COLOR, edgecolor='black', label='other class'),
            Line2D([], [], color='black', label='right class and place'),
            Line2D([], [], color='black', linestyle=':', label='wrong'),
        ],
        loc='outside lower center',
        ncols=4,
        frameon=False,
    )


def _draw_boxes(
    axes: Axes,
    boxes: Boxes,
    example: Example,
    classes: Sequence[str],
    groups: Sequence[str],
    min_score: float,
) -> None:
    scores = boxes.scores
    height, width = example.image.shape[:2]
    if scores is None:
        shown = range(len(boxes.labels))
    else:
        # Several classes on one object would cover each other.
        _, shown = nms(
            boxes.xyxy.astype(np.float32),
            scores.astype(np.float32),
            _MATCH_IOU,
            score_threshold=min_score,
            max_num=_MAX_BOXES,
        )
    for index in shown:
        x0, y0, x1, y1 = boxes.xyxy[index]
        label = int(boxes.labels[index])
        right = scores is None or _is_right(boxes.xyxy[index], label, example.truth)
        color = _FEW_COLOR if groups[label] == 'few' else _OTHER_COLOR
        # A dark line below keeps light boxes visible on light images.
        for edge, line in (('black', 3.2), (color, 1.8)):
            axes.add_patch(
                Rectangle(
                    (x0, y0),
                    x1 - x0,
                    y1 - y0,
                    fill=False,
                    edgecolor=edge,
                    linewidth=line,
                    linestyle='-' if right else ':',
                )
            )
        text = short_name(classes[label])
        text += '' if scores is None else f' {scores[index]:.2f}'
        # Above the box and rightwards, unless the picture ends there.
        inside = y0 < 0.07 * height
        left = x0 < 0.75 * width
        axes.text(
            max(x0, 0) if left else min(x1, width),
            max(y0, 0),
            text,
            fontsize=7.5,
            color='black',
            va='top' if inside else 'bottom',
            ha='left' if left else 'right',
            clip_on=True,
            bbox=dict(facecolor=color, edgecolor='none', pad=0.8, alpha=0.85),
        )


def _is_right(box: np.ndarray, label: int, truth: Boxes) -> bool:
    """Whether a ground-truth box of the class overlaps with IoU >= 0.5."""
    same = truth.xyxy[truth.labels == label]
    sides = np.minimum(same[:, 2:], box[2:]) - np.maximum(same[:, :2], box[:2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (same[:, 2:] - same[:, :2]).prod(axis=1)
    union = areas + (box[2:] - box[:2]).prod() - shared
    return bool(np.any(shared >= _MATCH_IOU * union))
