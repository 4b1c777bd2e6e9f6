"""COCO AP of the few, medium and many classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCOeval
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from daal_mmdet.evaluation.annotation_ids import count_from_one
from daal_mmdet.evaluation.class_counts import count_classes
from daal_mmdet.evaluation.no_detections import take_no_detections

__all__ = ['GROUPS', 'FewClassCocoMetric', 'group_classes', 'read_groups']

GROUPS = ('few', 'medium', 'many')
RULES = ('auto', 'lvis', 'terciles')
# LVIS (Gupta et al., 2019): classes in at most 10 / 100 / more training images.
_LVIS_FEW, _LVIS_MEDIUM = 10, 100


def group_classes(
    image_counts: Mapping[str, int],
    instance_counts: Mapping[str, int],
    rule: str = 'auto',
) -> dict[str, list[str]]:
    """Split classes by how often the training set shows them.

    * ``'lvis'``: few, medium and many are classes in at most 10, at most 100 and more
      training *images* (A. Gupta et al., "LVIS", CVPR 2019).
    * ``'terciles'``: the classes ordered by training *instances* and cut in three, few
      first; for small sets. One class over goes to the many, two over to the few and
      the many. Ties keep the given order.
    * ``'auto'``: ``'lvis'`` where it leaves no group empty, else ``'terciles'``.

    Args:
        image_counts: Training images that show each class.
        instance_counts: Training instances of each class, the same keys.
        rule: One of the above.

    Returns:
        Class names of ``'few'``, ``'medium'`` and ``'many'``, rarest first; with fewer
        than three classes, or under ``'lvis'``, a group may be empty.

    Raises:
        ValueError: If ``rule`` is unknown.
    """
    if rule not in RULES:
        raise ValueError(f'groups: expected one of {RULES} or a dict, got {rule!r}')
    ordered = sorted(instance_counts, key=lambda name: instance_counts[name])
    by_images: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in ordered:
        images = image_counts[name]
        if images <= _LVIS_FEW:
            by_images['few'].append(name)
        elif images <= _LVIS_MEDIUM:
            by_images['medium'].append(name)
        else:
            by_images['many'].append(name)
    if rule == 'lvis' or (rule == 'auto' and all(by_images.values())):
        return by_images
    first = (len(ordered) + 1) // 3
    last = (len(ordered) + 2) // 3
    return {
        'few': ordered[:first],
        'medium': ordered[first : len(ordered) - last],
        'many': ordered[len(ordered) - last :],
    }


def read_groups(
    train_ann_file: str,
    classes: Sequence[str],
    rule: str = 'auto',
    backend_args: dict | None = None,
) -> dict[str, list[str]]:
    """Split classes by how often the training annotations show them.

    Args:
        train_ann_file: COCO format.
        classes: Names of the classes.
        rule: As for :func:`group_classes`.
        backend_args: Of the file.

    Returns:
        As :func:`group_classes`.

    Raises:
        ValueError: If a class is not in the file, or ``rule`` is unknown.
    """
    images, instances = count_classes(train_ann_file, backend_args)
    missing = [name for name in classes if name not in instances]
    if missing:
        raise ValueError(
            f'train_ann_file: {train_ann_file} has no category {missing}; it has '
            f'{sorted(instances)}'
        )
    return group_classes(
        {name: images[name] for name in classes},
        {name: instances[name] for name in classes},
        rule,
    )


@METRICS.register_module()
class FewClassCocoMetric(CocoMetric):
    """``CocoMetric`` with AP and AP50 of the few, medium and many classes beside.

    A class's group says how often the *training* set shows it, so the metric needs the
    training annotations. For each group G it adds ``bbox_mAP_G`` and ``bbox_mAP_50_G``
    (``segm_...`` for masks): the mean over the group's classes of what COCO averages
    over all, with at most 100 detections an image. As in COCO, a class without ground
    truth does not count, and a group without any gives -1.

    Where the detector finds nothing at all, every value is 0 (-1 without ground truth);
    ``CocoMetric`` returns none, and what waits for one, as ``save_best`` does, stops if
    another metric returned its own.

    With ``classwise``, each class has its own AP in values and table whatever the order
    of the category ids; ``CocoMetric`` mixes classes up where the annotation file does
    not list them by ascending id.

    Args:
        train_ann_file: Training annotations in COCO format, read through the
            ``backend_args`` of ``CocoMetric``. Not needed if ``groups`` is a dict.
        groups: ``'lvis'``, ``'terciles'`` or ``'auto'``, see :func:`group_classes`; or
            a dict of class names for ``'few'``, ``'medium'`` and ``'many'``, which may
            leave out groups and classes.
        **kwargs: The arguments of ``CocoMetric``.

    Raises:
        FileNotFoundError: If ``train_ann_file`` does not exist; behind ``backend_args``
            only when it is read.
        TypeError, ValueError: If ``groups`` is not as above, or its rule lacks a
            ``train_ann_file``.
        ValueError: When it learns of the data set, which is before a training starts:
            if a class of the data set is not in the training annotations, or a class in
            ``groups`` not in the data set.
    """

    def __init__(
        self,
        *args: object,
        train_ann_file: str | None = None,
        groups: str | Mapping[str, Sequence[str]] = 'auto',
        **kwargs: object,
    ) -> None:
        if isinstance(groups, str):
            # Says what is allowed before anything is trained.
            group_classes({}, {}, groups)
            if train_ann_file is None:
                raise ValueError(
                    f'train_ann_file: groups={groups!r} needs the training annotations,'
                    ' which decide which classes are few; got None'
                )
        else:
            _check_named_groups(groups)
        if (
            train_ann_file is not None
            and '://' not in str(train_ann_file)
            and not kwargs.get('backend_args')
            and not Path(train_ann_file).is_file()
        ):
            raise FileNotFoundError(
                f'train_ann_file: there is no file {str(train_ann_file)!r}; it decides '
                'which classes are few'
            )
        super().__init__(*args, **kwargs)
        if self._coco_api is not None:
            count_from_one(self._coco_api)
        self.train_ann_file = train_ann_file
        self.groups = groups
        self._classes_of_group: dict[str, list[str]] | None = None

    @property
    def dataset_meta(self) -> dict | None:
        """Meta info of the data set; its classes must be those of the groups."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict | None) -> None:
        self._dataset_meta = dataset_meta
        self._classes_of_group = None
        grouped = not self.format_only and {'bbox', 'segm'} & set(self.metrics)
        if grouped and dataset_meta and 'classes' in dataset_meta:
            self._group_classes()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics from the results of all images.

        Args:
            results: Pairs of ground truth and predictions, one an image.

        Returns:
            The values of ``CocoMetric`` and those of the groups.
        """
        with _keep_evaluators() as evaluators, take_no_detections():
            metrics = super().compute_metrics(results)
        for evaluator in evaluators:
            if evaluator.params.useCats:
                metrics.update(self._group_metrics(evaluator))
        return metrics

    def _group_metrics(self, evaluator: COCOeval) -> dict[str, float]:
        classes_of_group = self._group_classes()
        params = evaluator.params
        names = [c['name'] for c in evaluator.cocoGt.loadCats(params.catIds)]
        detections = list(params.maxDets)
        most = detections.index(100) if 100 in detections else -1
        # (iou, recall, class) for all areas; -1 where a class has no ground truth.
        precision = evaluator.eval['precision'][:, :, :, 0, most]
        at_50 = np.flatnonzero(np.isclose(params.iouThrs, 0.5))

        metrics, rows = {}, [['group', 'classes', 'mAP', 'mAP_50']]
        for group, classes in classes_of_group.items():
            columns = [names.index(name) for name in classes if name in names]
            values = {'mAP': _mean(precision[:, :, columns])}
            if len(at_50):
                values['mAP_50'] = _mean(precision[at_50][:, :, columns])
            for item, value in values.items():
                metrics[f'{params.iouType}_{item}_{group}'] = round(value, 3)
            row = [
                f'{values[item]:.3f}' if item in values else '-' for item in rows[0][2:]
            ]
            rows.append([group, str(len(columns)), *row])
        MMLogger.get_current_instance().info('\n' + AsciiTable(rows).table)
        return metrics

    def _group_classes(self) -> dict[str, list[str]]:
        """Class names of each group, read from the training annotations once."""
        if self._classes_of_group is None:
            classes = list(self.dataset_meta['classes'])
            if isinstance(self.groups, str):
                self._classes_of_group = read_groups(
                    self.train_ann_file, classes, self.groups, self.backend_args
                )
            else:
                named = [name for group in self.groups.values() for name in group]
                unknown = sorted(set(named) - set(classes))
                if unknown:
                    raise ValueError(
                        f'groups: the data set has no class {unknown}; it has {classes}'
                    )
                self._classes_of_group = {
                    group: list(self.groups.get(group, ())) for group in GROUPS
                }
        return self._classes_of_group


def _check_named_groups(groups: object) -> None:
    if not isinstance(groups, Mapping):
        raise TypeError(f'groups: expected one of {RULES} or a dict, got {groups!r}')
    if not set(groups) <= set(GROUPS):
        raise ValueError(f'groups: expected the keys {GROUPS}, got {sorted(groups)}')
    for group, names in groups.items():
        if isinstance(names, str):
            raise TypeError(
                f'groups[{group!r}]: expected a list of names, got {names!r}'
            )
    counts = Counter(name for names in groups.values() for name in names)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(f'groups: {twice} stand there more than once')


def _mean(precision: np.ndarray) -> float:
    """COCO's mean: over what has ground truth, -1 if nothing has."""
    precision = precision[precision > -1]
    return float(precision.mean()) if precision.size else -1.0


@contextmanager
def _keep_evaluators() -> Iterator[list[COCOeval]]:
    """Collect the ``COCOeval`` objects that ``CocoMetric`` makes for itself.

    It drops them, and with them the precision of each class at each threshold, which
    nothing else could tell us short of evaluating again. Its ``COCOevalMP`` inherits
    ``accumulate``. The method is replaced and not the class, because ``COCOevalMP``
    sends itself to other processes, which must find its class by name. The classes in
    them are put in the order of the annotation file.
    """
    kept: list[COCOeval] = []
    accumulate = COCOeval.accumulate

    def accumulate_and_keep(self: COCOeval, p: object = None) -> None:
        accumulate(self, p)
        if self.params.useCats:
            _order_as_in_file(self)
        kept.append(self)

    COCOeval.accumulate = accumulate_and_keep
    try:
        yield kept
    finally:
        COCOeval.accumulate = accumulate


def _order_as_in_file(evaluator: COCOeval) -> None:
    """Put an evaluation's classes in the order of the annotation file.

    ``COCOeval`` sorts them by id, while ``CocoMetric`` reads the AP of each class as if
    they stood there in the order of the file.
    """
    column = {category: i for i, category in enumerate(evaluator.params.catIds)}
    ordered = [c for c in evaluator.cocoGt.getCatIds() if c in column]
    columns = [column[c] for c in ordered]
    for name, axis in (('precision', 2), ('scores', 2), ('recall', 1)):
        evaluator.eval[name] = evaluator.eval[name].take(columns, axis)
    evaluator.params.catIds = ordered
