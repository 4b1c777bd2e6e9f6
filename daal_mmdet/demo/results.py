"""What the demo shows of finished runs: the table, and the figure's input."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from terminaltables import AsciiTable

from daal_mmdet.datasets.annotation_file import read_annotations
from daal_mmdet.datasets.coco_layout import CocoSplit
from daal_mmdet.logged_scalars import read_scalars
from daal_mmdet.visualization import Boxes, Example, TrainedRun

__all__ = ['choose_examples', 'format_table', 'load_examples', 'load_run']

GROUPS = ('few', 'medium', 'many')


def load_run(name: str, work_dir: Path, classes: Sequence[str]) -> TrainedRun:
    """Read losses and AP of a finished run from its log.

    Raises:
        ValueError: If the run's log holds no losses or no validation.
    """
    scalars = read_scalars(work_dir)
    if not scalars.train or not scalars.val:
        raise ValueError(
            f'{work_dir} holds no finished run: its log lacks '
            f'{"the validation" if scalars.train else "losses"}'
        )
    iterations = np.array([entry['step'] for entry in scalars.train])
    losses = {
        key: np.array([entry[key] for entry in scalars.train])
        for key in ('loss_cls', 'loss_bbox')
    }
    if 'coco/bbox_mAP' not in scalars.val:
        # CocoMetric logs no values at all for a model that detects nothing.
        return TrainedRun(
            name,
            iterations,
            losses,
            np.zeros(len(classes)),
            dict.fromkeys((*GROUPS, 'all'), 0.0),
        )
    class_ap = np.array([_ap(scalars.val, f'{c}_precision') for c in classes])
    group_ap = {group: _ap(scalars.val, f'bbox_mAP_{group}') for group in GROUPS}
    group_ap['all'] = _ap(scalars.val, 'bbox_mAP')
    return TrainedRun(name, iterations, losses, class_ap, group_ap)


def _ap(values: dict, key: str) -> float:
    """A logged AP; the metrics write -1 or NaN where there is nothing to measure."""
    value = float(values[f'coco/{key}'])
    return value if value >= 0 else math.nan


def format_table(
    runs: Sequence[TrainedRun], groups: Sequence[str], train_counts: Sequence[int]
) -> str:
    """AP of each group of classes, a column for each run.

    With two runs a last column holds their difference.
    """
    rows = [
        [
            'AP (IoU 0.50:0.95)',
            'classes',
            'training boxes each',
            *(run.name for run in runs),
        ]
        + ['difference'] * (len(runs) == 2)
    ]
    for group in (*GROUPS, 'all'):
        counts = [
            count
            for count, member in zip(train_counts, groups, strict=True)
            if group in (member, 'all')
        ]
        values = [run.group_ap[group] for run in runs]
        span = f'{min(counts)} to {max(counts)}' if counts else '-'
        label = 'all classes (mAP)' if group == 'all' else f'{group} classes'
        row = [label, str(len(counts)), span, *map(_three_digits, values)]
        if len(runs) == 2:
            row.append(_three_digits(values[1] - values[0], signed=True))
        rows.append(row)
    table = AsciiTable(rows)
    table.justify_columns = dict.fromkeys(range(1, len(rows[0])), 'right')
    return table.table


def _three_digits(value: float, signed: bool = False) -> str:
    return '-' if math.isnan(value) else f'{value:{"+" if signed else ""}.3f}'


def choose_examples(
    split: CocoSplit,
    groups: Sequence[str],
    train_counts: Sequence[int],
    number: int = 6,
) -> list[int | str]:
    """Image ids to show: those with most objects of few classes, rare classes first.

    The choice looks at the ground truth alone, never at detections. One after the
    other the image is taken that holds most few-class boxes of the classes shown least
    so far; ties go to the rarer class, then to the smaller image id.
    """
    document = read_annotations(split.ann_file)
    labels = {c['id']: i for i, c in enumerate(document['categories'])}
    held: dict[int | str, list[int]] = {image['id']: [] for image in document['images']}
    for annotation in document['annotations']:
        if not annotation.get('iscrowd', 0):
            held[annotation['image_id']].append(labels[annotation['category_id']])
    shown = np.zeros(len(groups))
    chosen: list[int | str] = []

    def worth(image_id: int | str) -> tuple[float, float]:
        few = [i for i in held[image_id] if groups[i] == 'few']
        fresh = sum(1 / (1 + shown[i]) for i in set(few))
        rarity = -min((train_counts[i] for i in few), default=math.inf)
        return fresh, rarity

    # Of equals max takes the first. COCO's ids are numbers, others' may be text.
    ordered = sorted(held, key=lambda image_id: (isinstance(image_id, str), image_id))

    for _ in range(min(number, len(held))):
        best = max((i for i in ordered if i not in chosen), key=worth)
        chosen.append(best)
        for label in set(held[best]):
            shown[label] += 1
    return chosen


def load_examples(
    split: CocoSplit, image_ids: Sequence[int | str], prediction_files: Sequence[Path]
) -> list[Example]:
    """Read images, ground truth and the detections of each run."""
    document = read_annotations(split.ann_file)
    labels = {c['id']: i for i, c in enumerate(document['categories'])}
    names = {image['id']: image['file_name'] for image in document['images']}
    predictions = []
    for file in prediction_files:
        with open(file, 'rb') as stream:
            predictions.append(
                {p['img_id']: p['pred_instances'] for p in pickle.load(stream)}
            )
    examples = []
    for image_id in image_ids:
        truth = [a for a in document['annotations'] if a['image_id'] == image_id]
        xywh = np.array([a['bbox'] for a in truth], np.float64).reshape(-1, 4)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        found = [by_id[image_id] for by_id in predictions]
        examples.append(
            Example(
                image=mmcv.imread(
                    split.image_dir / names[image_id], channel_order='rgb'
                ),
                truth=Boxes(
                    xyxy, np.array([labels[a['category_id']] for a in truth], int)
                ),
                detections=tuple(
                    Boxes(f['bboxes'].numpy(), f['labels'].numpy(), f['scores'].numpy())
                    for f in found
                ),
            )
        )
    return examples
