"""AP of an evaluation in the form that records keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ['evaluation_record']

_ALWAYS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_few', 'mAP_medium', 'mAP_many')


def evaluation_record(
    metrics: Mapping[str, float], classes: Sequence[str]
) -> dict[str, float | None | dict[str, float | None]]:
    """Sort what ``CocoMetric`` and ``FewClassCocoMetric`` return.

    Args:
        metrics: Result of an evaluation of boxes.
        classes: Class names.

    Returns:
        ``mAP``, ``mAP_50``, ..., and ``class_AP`` by the class's name. None where there
        is no ground truth; 0 throughout for a model that detects nothing, for which
        ``CocoMetric`` returns no value at all.

    Raises:
        ValueError: If the evaluation was not ``classwise``.
    """
    values = _without_prefix(metrics)
    if 'bbox_mAP' not in values:
        return {
            **dict.fromkeys(_ALWAYS, 0.0),
            'class_AP': dict.fromkeys(classes, 0.0),
        }
    missing = [name for name in classes if f'{name}_precision' not in values]
    if missing:
        raise ValueError(
            f'evaluation: expected the AP of each class, got none of {missing}; the '
            'evaluator needs classwise=True'
        )
    record: dict = {
        key.removeprefix('bbox_'): _ap(value)
        for key, value in values.items()
        if key.startswith('bbox_mAP')
    }
    record['class_AP'] = {name: _ap(values[f'{name}_precision']) for name in classes}
    return record


def _without_prefix(metrics: Mapping[str, float]) -> dict[str, float]:
    """Keys without what an evaluator puts before them, such as ``coco/``.

    The slash cannot tell, because the name of a class may hold one too.
    """
    whole = '/bbox_mAP'
    prefixes = [key.removesuffix(whole) + '/' for key in metrics if key.endswith(whole)]
    values = {}
    for key, value in metrics.items():
        prefix = next(filter(key.startswith, prefixes), '')
        values[key.removeprefix(prefix)] = value
    return values


def _ap(value: float) -> float | None:
    value = float(value)
    return None if math.isnan(value) or value < 0 else value
