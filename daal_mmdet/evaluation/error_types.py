"""What detections are wrong about, and what each kind of error costs a class."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from pycocotools import mask
from pycocotools.cocoeval import COCOeval

from daal_mmdet.evaluation.no_detections import take_no_detections

__all__ = ['ERROR_TYPES', 'class_precision', 'error_table', 'error_types']

ERROR_TYPES = ('confusion', 'location', 'duplicate', 'background')
# IoU of a hit, and from which on a box is of an object at all (TIDE's).
_HIT, _TOUCH = 0.5, 0.1


def error_types(coco: COCO, detections: Sequence[Mapping]) -> list[str | None]:
    """Sort boxes into hits and four kinds of error, at an IoU of 0.5.

    Much as D. Hoiem et al., "Diagnosing error in object detectors", ECCV 2012, and D.
    Bolya et al., "TIDE", ECCV 2020:

    * None: on an object of its class that no box of a higher score has taken (of
      several, it takes the one it overlaps most, as in COCO), or on a crowd of its
      class, where COCO counts neither hits nor errors.
    * ``'duplicate'``: boxes of higher scores have taken all such objects.
    * ``'confusion'``: there is an object there, of another class.
    * ``'location'``: an object of its class is only touched, at an IoU of 0.1 or more.
    * ``'background'``: nothing of that.

    Args:
        coco: The annotations.
        detections: In COCO's form: ``image_id``, ``category_id``, ``bbox`` (x, y, w,
            h) in pixels, ``score``.

    Returns:
        The type of each.
    """
    by_image = defaultdict(list)
    for index, detection in enumerate(detections):
        by_image[detection['image_id']].append(index)
    types: list[str | None] = [None] * len(detections)
    for image, indices in by_image.items():
        objects = coco.imgToAnns[image]
        categories = np.array([item['category_id'] for item in objects])
        crowd = np.array([item.get('iscrowd', 0) for item in objects], dtype=bool)
        indices.sort(key=lambda index: -detections[index]['score'])
        overlaps = _overlaps([detections[i]['bbox'] for i in indices], objects, crowd)
        taken = np.zeros(len(objects), dtype=bool)
        for index, overlap in zip(indices, overlaps, strict=True):
            own = categories == detections[index]['category_id']
            single = np.where(own & ~crowd, overlap, 0.0)
            free = np.where(taken, 0.0, single)
            if (free >= _HIT).any():
                taken[free.argmax()] = True
            elif (overlap[own & crowd] >= _HIT).any():
                continue
            elif (single >= _HIT).any():
                types[index] = 'duplicate'
            elif (overlap[~own] >= _HIT).any():
                types[index] = 'confusion'
            elif (single >= _TOUCH).any():
                types[index] = 'location'
            else:
                types[index] = 'background'
    return types


def class_precision(coco: COCO, detections: Sequence[Mapping]) -> dict[str, float]:
    """COCO's AP of each class over IoU 0.50:0.95; NaN without ground truth."""
    names = {category['id']: category['name'] for category in coco.cats.values()}
    with contextlib.redirect_stdout(io.StringIO()), take_no_detections():
        # It writes into what it is given.
        results = coco.loadRes([dict(detection) for detection in detections])
        evaluator = COCOeval(coco, results, 'bbox')
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval['precision'][:, :, :, 0, -1].mean(axis=(0, 1))
    return {
        names[category]: float(value) if value > -1 else np.nan
        for category, value in zip(evaluator.params.catIds, precision, strict=True)
    }


def error_table(
    coco: COCO, detections: Sequence[Mapping], groups: Mapping[str, Sequence[str]]
) -> str:
    """AP of groups of classes, as detected and without each kind of error.

    Args:
        coco: The annotations.
        detections: As for :func:`error_types`.
        groups: Names of the classes of each group.

    Returns:
        A Markdown table: a row a kind of error that is left out, a column a group.
    """
    types = error_types(coco, detections)
    rows = {'as detected': class_precision(coco, detections)}
    for left_out in ERROR_TYPES:
        kept = [d for d, t in zip(detections, types, strict=True) if t != left_out]
        rows[f'without {left_out}'] = class_precision(coco, kept)
    lines = [
        f'| AP | {" | ".join(groups)} |',
        f'|---|{"---:|" * len(groups)}',
    ]
    as_detected = _means(rows['as detected'], groups)
    for name, precision in rows.items():
        values = _means(precision, groups)
        cells = [f'{value:.3f}' for value in values]
        if name != 'as detected':
            gains = values - as_detected
            cells = [f'{c} ({g:+.3f})' for c, g in zip(cells, gains, strict=True)]
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _overlaps(
    boxes: Sequence[Sequence[float]], objects: Sequence[Mapping], crowd: np.ndarray
) -> np.ndarray:
    """IoU of boxes with objects, (boxes, objects); with a crowd, the share inside."""
    if not objects:
        return np.zeros((len(boxes), 0))
    truths = [item['bbox'] for item in objects]
    overlaps: np.ndarray = mask.iou(boxes, truths, crowd.astype(np.uint8).tolist())
    return overlaps


def _means(
    precision: Mapping[str, float], groups: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Mean AP of each group's classes that have ground truth; NaN if none has."""
    means = []
    for names in groups.values():
        values = np.array([precision[name] for name in names])
        known = values[~np.isnan(values)]
        means.append(known.mean() if known.size else np.nan)
    return np.array(means)
