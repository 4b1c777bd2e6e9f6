"""AP of an evaluation in the form that records keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import METRICS
from mmengine.config import Config

from daal_mmdet.evaluation.few_class_coco_metric import GROUPS, FewClassCocoMetric
from daal_mmdet.placed_dicts import built_class, placed_metrics

__all__ = ['evaluation_record', 'require_class_ap', 'require_metrics']

_COCO = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_GROUPED = tuple(f'{item}_{group}' for item in ('mAP', 'mAP_50') for group in GROUPS)


def require_class_ap(config: Config, part: str) -> None:
    """Make a loop's metrics give what a record needs, before anything is trained.

    Args:
        config: A training config; its metrics of boxes become ``classwise``, return
            every ``metric_item``, and evaluate boxes last, since ``CocoMetric`` gives
            the AP of a class the same name for boxes and masks.
        part: ``'val'`` or ``'test'``; may have no evaluator.

    Raises:
        ValueError: If there are metrics, and none that gives COCO's AP of boxes.
    """
    metrics = [metric for _, metric in placed_metrics(config, part)]
    fitting = [metric for metric in metrics if _gives_box_ap(metric)]
    if metrics and not fitting:
        raise ValueError(
            f"{part}_evaluator: expected a CocoMetric whose metric is or holds 'bbox', "
            f'got {[dict(metric) for metric in metrics]}'
        )
    for metric in fitting:
        metric['classwise'] = True
        metric.pop('metric_items', None)
        kinds = metric.get('metric')
        if isinstance(kinds, list | tuple):
            metric['metric'] = [kind for kind in kinds if kind != 'bbox'] + ['bbox']


def require_metrics(config: Config, key: str, names: Sequence[str]) -> None:
    """Make sure that figures will be there, before anything is trained.

    Args:
        config: A training config.
        key: What asks for them, for the message.
        names: Keys of :func:`evaluation_record`.

    Raises:
        ValueError: If no evaluator gives one of them. One of a class of the user's may
            give anything, so then none is missed.
    """
    given: set[str] = set()
    for part in ('val', 'test'):
        for _, metric in placed_metrics(config, part):
            if not _gives_box_ap(metric):
                continue
            kind = built_class(metric, METRICS)
            if kind not in (CocoMetric, FewClassCocoMetric):
                return
            given.update(_COCO, _GROUPED if kind is FewClassCocoMetric else ())
    missing = [name for name in names if name not in given]
    if given and missing:
        raise ValueError(
            f'{key}: the evaluators give {sorted(given)}, not {missing}; class_AP and '
            'names of class_means are allowed too, and FewClassCocoMetric gives mAP_few'
        )


def _gives_box_ap(metric: Mapping) -> bool:
    kind = built_class(metric, METRICS)
    # LVIS's metric is one of COCO's by inheritance, and returns other values.
    is_coco = isinstance(kind, type) and issubclass(kind, CocoMetric)
    if not is_coco or issubclass(kind, LVISMetric) or metric.get('format_only'):
        return False
    kinds = metric.get('metric', 'bbox')
    return 'bbox' in ([kinds] if isinstance(kinds, str) else kinds)


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
        ValueError: If the evaluation was not ``classwise``, or of something else.
    """
    if not metrics:
        return {
            **dict.fromkeys(_COCO, 0.0),
            'class_AP': dict.fromkeys(classes, 0.0),
        }
    values = _without_prefix(metrics)
    if 'bbox_mAP' not in values:
        raise ValueError(
            f'evaluation: expected bbox_mAP, as CocoMetric returns, got {list(metrics)}'
        )
    class_ap = {name: values.get(f'{name}_precision') for name in classes}
    if classes and all(value is None for value in class_ap.values()):
        raise ValueError(
            f'evaluation: expected the AP of each class, got none of {list(classes)}; '
            'the evaluator needs classwise=True'
        )
    record: dict = {
        key.removeprefix('bbox_'): _ap(value)
        for key, value in values.items()
        if key.startswith('bbox_mAP')
    }
    record['class_AP'] = {name: _ap(value) for name, value in class_ap.items()}
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


def _ap(value: float | None) -> float | None:
    # None already for a class that the file has no category of.
    return None if value is None or math.isnan(value) or value < 0 else float(value)
