"""What the figures of a benchmark show, from its records and its runs' logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config

from daal_mmdet.benchmark.evaluation_record import evaluation_record
from daal_mmdet.benchmark.spec import BenchmarkSpec, PlannedRun
from daal_mmdet.benchmark.table import (
    has_metric,
    metric_names,
    metric_value,
    paired_differences,
)
from daal_mmdet.data_check import innermost_dataset
from daal_mmdet.evaluation.class_counts import count_classes
from daal_mmdet.logged_scalars import Scalars, read_scalars
from daal_mmdet.paired_interval import paired_interval
from daal_mmdet.visualization.benchmark_figures import (
    Difference,
    Panel,
    SeedCurves,
    draw_class_ap,
    draw_differences,
    draw_panels,
)

__all__ = ['benchmark_figures']

_LOSSES = {
    'loss_cls': 'loss_cls (each variant in the unit of its own loss)',
    'loss_bbox': 'loss_bbox',
}
# Names of scalars, of which several are averaged, and what they are. Where a model has
# several such losses, their places stand in the names.
_ADAPTATION = {
    r'daal(_.+)?_lambda': 'lambda, proportion of BNM',
    r'daal(_.+)?_gain': 'K, Kalman gain of the task loss',
    r'daal(_.+)?_max_weight': 'largest class weight',
    r'daal(_.+)?_min_weight': 'smallest class weight',
    r'daal(_.+)?_bnm': 'BNM term before its proportion',
    r'kalman(_.+)?_log_det_\d+': 'log det P of the box residuals, mean over levels',
}

Logs = Mapping[str, Sequence[tuple[dict, Scalars]]]
Points = Sequence[tuple[int, float]]


def benchmark_figures(
    records: Sequence[dict],
    spec: BenchmarkSpec,
    folder: Path,
    run: PlannedRun,
    split: str = 'test',
    setting: str | None = None,
) -> Iterator[tuple[str, Figure]]:
    """Draw what the runs of a benchmark have to show.

    ``losses``: training losses; ``adaptation``: the scalars of ``DAALLoss`` and
    ``KalmanCovarianceHook``; ``val_curve``: AP over the training; ``test_class_ap``: AP
    of each class; ``test_differences``: paired differences to the baseline. Each only
    where there is something: curves need the runs' logs, a validation curve two
    validations, differences the baseline and another variant.

    Args:
        records: Finished runs as :func:`select_records` returns them.
        spec: Names variants, baseline and metrics.
        folder: What the ``work_dir`` of the records is relative to.
        run: Any run of the spec; tells schedule and training data.
        split: Part that AP is shown of, 'val' or 'test'.
        setting: What the titles say after the data set; None takes that of the run.

    Yields:
        Name and figure.
    """
    variants = list(spec.variants)
    data = f'{spec.data}, {run.setting if setting is None else setting}'
    for name, headline, panels, step in _curves_of_runs(records, spec, folder, run):
        title = f'{headline}: {data}\n(mean over seeds, band from least to greatest)'
        yield name, draw_panels(panels, variants, title, step)
    shown = [record for record in records if record.get(split) is not None]
    if not shown:
        return
    title = (
        f'AP of each class, {split} part: {data}\n'
        '(mean over seeds, line from least to greatest)'
    )
    yield f'{split}_class_ap', _class_ap(shown, variants, split, run, title)
    differences = _differences(shown, spec, split)
    if differences:
        title = (
            f'Paired differences to {spec.baseline}, {split} part: {data}\n'
            '(dots: seeds; diamond: mean; line: 95 % bootstrap interval)'
        )
        figure = draw_differences(differences, variants, spec.baseline, title)
        yield f'{split}_differences', figure


def _curves_of_runs(
    records: Sequence[dict], spec: BenchmarkSpec, folder: Path, run: PlannedRun
) -> Iterator[tuple[str, str, list[Panel], str]]:
    """Name, headline, panels and unit of the steps of each figure of curves."""
    logs = _read_logs(records, folder)
    losses = _panels(_LOSSES, logs, _train_points, is_loss=True)
    if losses:
        yield 'losses', 'Training losses', losses, 'iteration'
    adaptation = _panels(_ADAPTATION, logs, _train_points)
    if adaptation:
        yield 'adaptation', 'Adaptation', adaptation, 'iteration'
    with_val = [record for record in records if record.get('val') is not None]
    # One of both parts may have figures that the other lacks.
    names = [
        name
        for name in metric_names(spec.compare, with_val, 'val')
        if all(has_metric(record, 'val', name, spec) for record in with_val)
    ]
    validations = _panels(
        dict(zip(names, names, strict=True)), logs, partial(_val_points, spec)
    )
    if validations:
        step = 'epoch' if run.length[0] == 'max_epochs' else 'iteration'
        yield 'val_curve', 'Validation', validations, step


def _read_logs(records: Sequence[dict], folder: Path) -> Logs:
    logs: dict[str, list[tuple[dict, Scalars]]] = {}
    for record in records:
        if 'work_dir' in record:
            scalars = read_scalars(folder / record['work_dir'])
            logs.setdefault(record['variant'], []).append((record, scalars))
    return logs


def _panels(
    titles: Mapping[str, str],
    logs: Logs,
    points: Callable[[str, dict, Scalars], Points],
    is_loss: bool = False,
) -> list[Panel]:
    """A panel for each quantity that some variant has."""
    panels = [
        Panel(title, _curves(logs, partial(points, name)), is_loss, is_loss)
        for name, title in titles.items()
    ]
    return [panel for panel in panels if panel.curves]


def _curves(
    logs: Logs, points: Callable[[dict, Scalars], Points]
) -> dict[str, SeedCurves]:
    """One quantity of the variants that have it, at the steps that all seeds have."""
    curves = {}
    for variant, runs in logs.items():
        series = [dict(found) for run in runs if (found := points(*run))]
        steps = sorted(set.intersection(*map(set, series))) if series else []
        if steps:
            values = np.array([[one[step] for step in steps] for one in series])
            curves[variant] = SeedCurves(np.array(steps), values)
    return curves


def _train_points(pattern: str, record: dict, scalars: Scalars) -> Points:
    """Mean of the logged scalars of such names; of levels, those measured by then."""
    points = []
    for entry in scalars.train:
        values = [
            value
            for name, value in entry.items()
            if re.fullmatch(pattern, name) and np.isfinite(value)
        ]
        if values:
            points.append((entry['step'], float(np.mean(values))))
    return points


def _val_points(
    spec: BenchmarkSpec, name: str, record: dict, scalars: Scalars
) -> Points:
    """A figure of each validation; nothing if there is no curve of them."""
    if record.get('val') is None or len(scalars.validations) < 2:
        return []
    classes = list(record['val']['class_AP'])
    points = []
    for entry in scalars.validations:
        # CocoMetric logs nothing where nothing was detected.
        found = any(key.endswith('bbox_mAP') for key in entry)
        made = {'val': evaluation_record(entry if found else {}, classes)}
        points.append((entry['step'], metric_value(made, 'val', name, spec)))
    return points


def _class_ap(
    records: Sequence[dict],
    variants: Sequence[str],
    split: str,
    run: PlannedRun,
    title: str,
) -> Figure:
    values = {
        variant: np.array(
            [
                [np.nan if ap is None else ap for ap in r[split]['class_AP'].values()]
                for r in records
                if r['variant'] == variant
            ]
        )
        for variant in variants
    }
    classes = list(records[0][split]['class_AP'])
    counts = _training_counts(run.config)
    known = all(label in counts for label in classes)
    return draw_class_ap(
        {variant: rows for variant, rows in values.items() if len(rows)},
        classes,
        [counts[label] for label in classes] if known else None,
        variants,
        title,
    )


def _training_counts(config: Config) -> Mapping[str, int]:
    """Boxes of each class in the training annotations; empty if they are not there."""
    dataset = innermost_dataset(config, 'train_dataloader')
    path = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    return count_classes(str(path), None)[1] if path.is_file() else {}


def _differences(
    records: Sequence[dict], spec: BenchmarkSpec, split: str
) -> dict[str, dict[str, Difference]]:
    differences = {}
    for name in metric_names(spec.compare, records, split):
        differences[name] = {
            variant: Difference(
                pairs, paired_interval(pairs) if len(pairs) > 1 else None
            )
            for variant, pairs in paired_differences(records, spec, split, name).items()
            if len(pairs) and not np.isnan(pairs).any()
        }
    return {name: found for name, found in differences.items() if found}
