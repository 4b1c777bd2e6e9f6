"""Markdown tables of finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from daal_mmdet.benchmark.spec import BenchmarkSpec
from daal_mmdet.markdown_table import markdown_table
from daal_mmdet.paired_interval import paired_interval, student_interval
from daal_mmdet.validation import check_choice

__all__ = [
    'SPLITS',
    'benchmark_table',
    'has_metric',
    'metric_names',
    'metric_value',
    'paired_differences',
    'select_records',
]

SPLITS = ('val', 'test')


def select_records(
    records: Sequence[dict],
    spec: BenchmarkSpec,
    hashes: Mapping[str, str] | None = None,
) -> list[dict]:
    """Those records that belong into a spec's table.

    A record needs ``data``, ``variant``, ``seed`` and a split; one made by hand may
    lack ``config``. Of several with one seed the last counts.

    Args:
        records: Any finished runs.
        spec: Names the data set, the variants and the seeds.
        hashes: Hash of each variant's config: a record that has one must have this.
            Without hashes, data set and variant decide.

    Raises:
        ValueError: If, without hashes, the records of a variant are of several configs.
    """
    hashes = hashes or {}
    chosen = []
    for variant in spec.variants:
        own = []
        for record in records:
            named = (record['data'], record['variant']) == (spec.data, variant)
            config = record.get('config')
            known = variant in hashes and config is not None
            if config == hashes.get(variant) if known else named:
                own.append(record)
        own = [record for record in own if record['seed'] in spec.seeds]
        configs = sorted({record['config'] for record in own if 'config' in record})
        if len(configs) > 1:
            raise ValueError(
                f'records: those of {variant!r} are of several configs {configs}; '
                'a table must not mix them'
            )
        by_seed = {record['seed']: record | dict(variant=variant) for record in own}
        chosen += [by_seed[seed] for seed in sorted(by_seed)]
    return chosen


def metric_names(
    names: Sequence[str], records: Sequence[dict], split: str
) -> list[str]:
    """Columns of a table; ``class_AP`` becomes ``AP of <class>`` for each class."""
    columns = []
    for name in names:
        if name == 'class_AP':
            classes = next((r[split]['class_AP'] for r in records), {})
            columns += [f'AP of {label}' for label in classes]
        else:
            columns.append(name)
    return columns


def metric_value(record: dict, split: str, name: str, spec: BenchmarkSpec) -> float:
    """One figure of a run; NaN where there is no ground truth.

    Raises:
        ValueError: If the record has no such figure.
    """
    values = record[split]
    class_ap = values.get('class_AP', {})
    if name in spec.class_means:
        parts = [class_ap.get(label) for label in spec.class_means[name]]
        unknown = [label for label in spec.class_means[name] if label not in class_ap]
        if unknown:
            raise ValueError(
                f'class_means: {name!r} names {unknown}; the records have '
                f'{list(class_ap)}'
            )
        kept = [part for part in parts if part is not None]
        return float(np.mean(kept)) if kept else float('nan')
    if name.startswith('AP of ') and name.removeprefix('AP of ') in class_ap:
        value = class_ap[name.removeprefix('AP of ')]
    elif name in values:
        value = values[name]
    else:
        known = [*spec.class_means, *(key for key in values if key != 'class_AP')]
        raise ValueError(f'metrics: expected class_AP or one of {known}, got {name!r}')
    return float('nan') if value is None else float(value)


def has_metric(record: dict, split: str, name: str, spec: BenchmarkSpec) -> bool:
    """Whether :func:`metric_value` finds the figure."""
    try:
        metric_value(record, split, name, spec)
    except ValueError:
        return False
    return True


def paired_differences(
    records: Sequence[dict], spec: BenchmarkSpec, split: str, name: str
) -> dict[str, np.ndarray]:
    """What each variant gains over the baseline in a figure, run by run of one seed.

    Returns:
        (pairs,) by variant, in the order of the seeds; not of the baseline itself, nor
        of variants without runs.
    """
    values = {
        (record['variant'], record['seed']): metric_value(record, split, name, spec)
        for record in records
    }
    made = {variant for variant, _ in values}
    return {
        variant: np.array(
            [
                values[variant, seed] - values[spec.baseline, seed]
                for seed in spec.seeds
                if (variant, seed) in values and (spec.baseline, seed) in values
            ]
        )
        for variant in spec.variants
        if variant in made and variant != spec.baseline
    }


def benchmark_table(
    records: Sequence[dict],
    spec: BenchmarkSpec,
    split: str = 'test',
    setting: str = '',
) -> str:
    """Mean and standard deviation over seeds, then paired differences.

    A difference pairs the runs of one seed; a positive one is better than the baseline.
    Its interval is a 95 % percentile bootstrap interval of the mean over the pairs. As
    that is too narrow for few, it is bold where Student's t interval is clear of zero
    too. A variant whose runs are not all there is shown with those it has.

    Args:
        records: Finished runs as :func:`select_records` returns them.
        spec: Names variants, baseline and metrics.
        split: 'val', for choices, or 'test'.
        setting: What the heading says after the data set, such as the schedule.

    Raises:
        ValueError: If the split is unknown, or a metric is.
    """
    check_choice('split', split, SPLITS)
    records = [record for record in records if record.get(split) is not None]
    variants = [v for v in spec.variants if any(r['variant'] == v for r in records)]
    if not variants:
        return f'No finished run on {spec.data} with a {split} part.\n'
    runs = {
        variant: {r['seed']: r for r in records if r['variant'] == variant}
        for variant in variants
    }
    columns = metric_names(spec.metrics, records, split)
    data = ', '.join(filter(None, (spec.data, setting)))
    rows = []
    for variant, by_seed in runs.items():
        cells = [variant, str(len(by_seed))]
        for name in columns:
            values = [metric_value(r, split, name, spec) for r in by_seed.values()]
            cells.append(_mean_and_spread(values))
        times = [r.get('seconds_per_iteration') for r in by_seed.values()]
        known = [1000 * time for time in times if time is not None]
        cells.append(f'{np.median(known):.0f}' if known else '-')
        rows.append(cells)
    parts = [
        f'{data}: {split} part, mean ± standard deviation over seeds.',
        markdown_table(['variant', 'seeds', *columns, 'ms / iteration'], rows),
        *_differences(records, spec, split),
        '\n'.join(_notes(runs, spec)),
    ]
    return '\n\n'.join(filter(None, parts)) + '\n'


def _differences(records: Sequence[dict], spec: BenchmarkSpec, split: str) -> list[str]:
    names = metric_names(spec.compare, records, split)
    columns = [paired_differences(records, spec, split, name) for name in names]
    has_baseline = any(record['variant'] == spec.baseline for record in records)
    if not has_baseline or not columns or not columns[0]:
        return [f'No differences: they need {spec.baseline} and another variant.']
    rows = []
    for variant, pairs in columns[0].items():
        cells = [_difference(column[variant]) for column in columns]
        rows.append([variant, str(len(pairs)), *cells])
    return [
        f'Difference to {spec.baseline}, paired by seed: mean and its 95 % bootstrap '
        "interval, bold where clear of zero, as Student's t interval is too.",
        markdown_table(['variant', 'pairs', *names], rows),
    ]


def _notes(runs: Mapping[str, Mapping[int, dict]], spec: BenchmarkSpec) -> list[str]:
    """What a reader of the table must know."""
    notes = []
    for variant in spec.variants:
        missing = [s for s in spec.seeds if s not in runs.get(variant, {})]
        if missing:
            seeds = ', '.join(map(str, missing))
            notes.append(f'- Not there yet: {variant}, seed {seeds}.')
    every = [record for by_seed in runs.values() for record in by_seed.values()]
    told = {
        "this package's code" if key == 'code' else key: [r.get(key) for r in every]
        for key in ('code', 'device', 'setting', 'iterations', 'threads')
    }
    versions = [record.get('versions') or {} for record in every]
    for name in sorted(set().union(*versions)):
        told[f'version of {name}'] = [version.get(name) for version in versions]
    for what, values in told.items():
        known = sorted({value for value in values if value is not None})
        if len(known) > 1:
            notes.append(f'- The runs differ in {what}: {"; ".join(map(str, known))}.')
    adopted = [f'{r["variant"]}, seed {r["seed"]}' for r in every if 'adopted' in r]
    if 0 < len(adopted) < len(every):
        # Their iterations drew other random numbers than those of their pairs.
        notes.append(f'- Trained outside the benchmark: {"; ".join(adopted)}.')
    return notes


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = np.mean(values)
    if np.isnan(mean):
        return '-'
    if len(values) < 2:
        return f'{mean:.3f}'
    return f'{mean:.3f} ± {np.std(values, ddof=1):.3f}'


def _difference(pairs: np.ndarray) -> str:
    if not len(pairs) or np.isnan(pairs).any():
        return '-'
    mean = f'{pairs.mean():+.3f}'
    if len(pairs) < 2:
        return mean
    low, high = paired_interval(pairs)
    text = f'{mean} [{low:+.3f}, {high:+.3f}]'
    intervals = ((low, high), student_interval(pairs))
    clear = all(low > 0 or high < 0 for low, high in intervals)
    return f'**{text}**' if clear else text
