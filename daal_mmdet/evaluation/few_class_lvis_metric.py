"""LVIS AP that runs with today's NumPy, with AP-Fixed and AP-Pool beside it."""

from __future__ import annotations

import copy
import importlib
import types
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmdet.evaluation.metrics import LVISMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from daal_mmdet.evaluation.annotation_ids import count_from_one
from daal_mmdet.validation import check_number

__all__ = ['FewClassLVISMetric', 'strongest_of_each_class']

_GROUPS = ('r', 'c', 'f')
_AREAS = ('s', 'm', 'l')


def strongest_of_each_class(detections: Sequence[dict], limit: int) -> list[dict]:
    """The ``limit`` detections with the highest scores of each class.

    Args:
        detections: In LVIS's result format; ``category_id`` and ``score`` are read.
        limit: Detections to keep of each class over the whole data set, > 0.

    Returns:
        The kept ones, those of a class together; of equal scores the first stay.
    """
    of_class: dict[int, list[dict]] = defaultdict(list)
    for detection in detections:
        of_class[detection['category_id']].append(detection)
    return [
        detection
        for found in of_class.values()
        for detection in sorted(found, key=lambda d: -d['score'])[:limit]
    ]


@METRICS.register_module()
class FewClassLVISMetric(LVISMetric):
    """``LVISMetric`` that runs under NumPy 2, with AP-Fixed and AP-Pool beside.

    Standard LVIS AP keeps 300 detections an image, over all classes. A detector can
    raise it by spending them on rare classes, which improves nothing a user would see
    (A. Dave et al., "Evaluating large-vocabulary object detectors: the devil is in the
    details", arXiv 2102.01066, 2021). Their two answers:

    * AP-Fixed: no limit an image; the ``dets_per_class`` strongest detections of each
      class over the data set. Classes don't compete, so scores need not be comparable
      between them.
    * AP-Pool: the same detections, each matched within its class as before, then all
      ranked together by score: one precision-recall curve for all classes, which asks
      that scores *are* comparable. Frequent classes weigh more in it.

    For each of bbox and segm it adds ``AP_fixed`` and ``AP_pool`` to LVIS's ``AP, APr,
    APc, APf, ...``, each also for the rare, common and frequent classes
    (``APr_fixed``, ``APr_pool``...: the mean over, or the pool of, these). As in LVIS,
    detections of a class that an image says nothing about do not count, and a value
    without any ground truth is -1.

    The detector decides how many detections of an image get here. For the AP-Fixed of
    the paper it should give all it has: ``max_per_img=10000, score_thr=0`` in the
    ``test_cfg``; standard AP still takes the best 300 of them. When the detector finds
    nothing at all the values are 0, where mmdet's metric returns none.

    With ``classwise``, each class has its own AP whatever the order of the category
    ids; ``LVISMetric`` mixes classes up where the annotation file does not list them by
    ascending id.

    The ``lvis`` package (0.5.3) reads ``np.float``, which NumPy 1.24 dropped. While it
    runs, its module sees a NumPy with that name; NumPy itself stays as it is.

    Args:
        dets_per_class: Detections of each class for AP-Fixed and AP-Pool, > 0.
        fixed_and_pool: Whether to compute them; it takes about as long again as AP.
        **kwargs: The arguments of ``LVISMetric``.

    Raises:
        ImportError: If the ``lvis`` package is not installed.
        TypeError, ValueError: If ``dets_per_class`` is out of range; the message names
            it.
    """

    def __init__(
        self,
        *args: Any,
        dets_per_class: int = 10000,
        fixed_and_pool: bool = True,
        **kwargs: Any,
    ) -> None:
        _lvis()
        check_number('dets_per_class', dets_per_class, low=1, integer=True)
        super().__init__(*args, **kwargs)
        if self._lvis_api is not None:
            count_from_one(self._lvis_api)
        self.dets_per_class = dets_per_class
        self.fixed_and_pool = fixed_and_pool

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics from the results of all images.

        Args:
            results: Pairs of ground truth and predictions, one an image.

        Returns:
            The values of ``LVISMetric``, and those of AP-Fixed and AP-Pool.
        """
        with _numpy_with_float():
            with _classes_as_in_file():
                metrics = super().compute_metrics(results)
            if self.format_only:
                return metrics
            predictions = [prediction for _, prediction in results]
            found_any = any(len(p['bboxes']) for p in predictions)
            for kind in self.metrics:
                if kind not in ('bbox', 'segm'):
                    continue
                if not found_any:
                    metrics.update(self._of_nothing(kind))
                elif self.fixed_and_pool:
                    metrics.update(self._fixed_and_pool(kind, predictions))
        return metrics

    def _fixed_and_pool(self, kind: str, predictions: Sequence[dict]) -> dict:
        lvis = _lvis()
        detections = list(self._detections(kind, predictions))
        strongest = strongest_of_each_class(detections, self.dets_per_class)
        found = lvis.LVISResults(self._lvis_api, strongest, max_dets=-1)
        evaluator = lvis.LVISEval(self._lvis_api, found, iou_type=kind)
        params = evaluator.params
        params.max_dets = -1
        params.area_rng, params.area_rng_lbl = params.area_rng[:1], ['all']
        evaluator.evaluate()
        evaluator.accumulate()

        metrics: dict[str, float] = {}
        rows = [['', 'AP', *(f'AP{group}' for group in _GROUPS)]]
        groups = [None, *range(len(_GROUPS))]
        values = {
            'fixed': [
                evaluator._summarize('ap', freq_group_idx=group) for group in groups
            ],
            'pool': [_pooled_ap(evaluator, group) for group in groups],
        }
        for name, of_groups in values.items():
            rows.append([f'{kind} AP-{name.title()}', *(f'{v:.3f}' for v in of_groups)])
            for column, value in zip(rows[0][1:], of_groups, strict=True):
                metrics[f'{kind}_{column}_{name}'] = round(float(value), 3)
        MMLogger.get_current_instance().info('\n' + AsciiTable(rows).table)
        return metrics

    def _detections(self, kind: str, predictions: Sequence[dict]) -> Iterator[dict]:
        """Predictions in LVIS's result format, as ``results2json`` writes them."""
        for prediction in predictions:
            scores = prediction['scores']
            if kind == 'segm':
                scores = prediction.get('mask_scores', scores)
            for i, label in enumerate(prediction['labels']):
                detection = {
                    'image_id': prediction['img_id'],
                    'category_id': self.cat_ids[label],
                    'score': float(scores[i]),
                }
                if kind == 'segm':
                    detection['segmentation'] = prediction['masks'][i]
                else:
                    detection['bbox'] = self.xyxy2xywh(prediction['bboxes'][i])
                yield detection

    def _of_nothing(self, kind: str) -> dict[str, float]:
        """Metrics where the detector found nothing: 0 wherever there was something."""
        api = self._lvis_api
        annotations = api.dataset['annotations']
        with_truth = {api.cats[a['category_id']]['frequency'] for a in annotations}
        areas = [a['area'] for a in annotations]
        bounds = {'s': (0, 32**2), 'm': (32**2, 96**2), 'l': (96**2, 1e5**2)}
        there = {'AP': bool(annotations), 'AP50': bool(annotations)}
        there['AP75'] = bool(annotations)
        for size in _AREAS:
            low, high = bounds[size]
            there[f'AP{size}'] = any(low <= area <= high for area in areas)
        for group in _GROUPS:
            there[f'AP{group}'] = group in with_truth
        wanted = there if self.metric_items is None else self.metric_items
        values = {k: 0.0 if there[k] else -1.0 for k in wanted if k in there}
        if self.fixed_and_pool:
            for key in ('AP', *(f'AP{group}' for group in _GROUPS)):
                for name in ('fixed', 'pool'):
                    values[f'{key}_{name}'] = 0.0 if there[key] else -1.0
        return {f'{kind}_{key}': value for key, value in values.items()}


def _pooled_ap(evaluator: Any, group: int | None) -> float:
    """AP of one ranking of all classes, or of those of a frequency group.

    LVIS accumulates over the images of a class. To it the images of all classes are
    now the images of a single one, so that its own definition of precision serves.
    """
    params = copy.copy(evaluator.params)
    classes = range(len(params.cat_ids))
    if group is not None:
        classes = evaluator.freq_groups[group]
    images = len(params.img_ids)
    pooled = copy.copy(evaluator)
    pooled.eval_imgs = [
        found
        for c in classes
        for found in evaluator.eval_imgs[c * images : (c + 1) * images]
    ]
    params.use_cats = 0
    params.img_ids = range(len(pooled.eval_imgs))
    pooled.params = params
    pooled.accumulate()
    return float(pooled._summarize('ap'))


def _lvis() -> types.ModuleType:
    try:
        return importlib.import_module('lvis')
    except ImportError as error:
        raise ImportError(
            f'FewClassLVISMetric needs the package lvis, which does not import here '
            f'({error}). Install it with pip install lvis'
        ) from error


class _NumpyWithFloat(types.ModuleType):
    """NumPy, and ``float`` under the name by which NumPy below 1.24 gave it."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@contextmanager
def _numpy_with_float() -> Iterator[None]:
    """Let ``lvis.eval`` find ``np.float``, which is all it lacks."""
    module = importlib.import_module('lvis.eval')
    original = module.np
    module.np = _NumpyWithFloat('numpy')
    try:
        yield
    finally:
        module.np = original


@contextmanager
def _classes_as_in_file() -> Iterator[None]:
    """Put the classes of a summarized evaluation in the order of the annotation file.

    ``LVISEval`` sorts them by id, while ``LVISMetric`` reads the AP of each class as if
    they stood there in the order of the file.
    """
    evaluator = _lvis().LVISEval
    summarize = evaluator.summarize

    def summarize_and_order(self: Any) -> None:
        summarize(self)
        if self.params.use_cats:
            column = {category: i for i, category in enumerate(self.params.cat_ids)}
            columns = [column[category] for category in self.lvis_gt.get_cat_ids()]
            self.eval['precision'] = self.eval['precision'].take(columns, 2)

    evaluator.summarize = summarize_and_order
    try:
        yield
    finally:
        evaluator.summarize = summarize
