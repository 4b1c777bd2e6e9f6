"""Markdown table of a comparison of counting schemes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from daal_mmdet.counting.counting_metric import count_errors
from daal_mmdet.markdown_table import markdown_table
from daal_mmdet.paired_interval import paired_interval

__all__ = ['scheme_table']

_METRICS = ('MAE', 'RMSE', 'bias')


def scheme_table(
    records: Sequence[dict],
    baseline: str,
    published: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Mean and standard deviation over runs, and the paired difference to a baseline.

    A run is a fold with a seed. As in the literature, errors are those of each fold,
    then averaged. A difference pairs the runs of one fold and seed; a negative one is
    better than the baseline. Its interval is a 95 % bootstrap interval of the mean. r
    is the correlation of predicted and true counts over the images of a run, 0 if all
    predictions agree. A scheme with a run that diverged has the error nan. The row
    after the schemes counts every image as the mean of its training images.

    Args:
        records: Runs as :func:`~daal_mmdet.counting.comparison.run_schemes` returns
            them.
        baseline: Name of the scheme to compare with.
        published: MAE and RMSE from papers, by name; last rows.

    Raises:
        ValueError: If the baseline is not there, or runs differ between schemes.
    """
    schemes = list(dict.fromkeys(record['scheme'] for record in records))
    if baseline not in schemes:
        raise ValueError(f'baseline: expected one of {schemes}, got {baseline!r}')
    runs = {
        scheme: {(r['fold'], r['seed']): r for r in records if r['scheme'] == scheme}
        for scheme in schemes
    }
    keys = list(runs[baseline])
    for scheme, found in runs.items():
        if set(found) != set(keys):
            raise ValueError(
                f'runs: {baseline} has folds and seeds {sorted(keys, key=str)}, '
                f'{scheme} has {sorted(found, key=str)}'
            )
    heads = ['scheme', *_METRICS, 'r', f'MAE - {baseline}', '95 % interval', 'runs']
    rows = []
    for scheme in schemes:
        cells = [scheme]
        for metric in _METRICS:
            cells.append(_spread([runs[scheme][key][metric] for key in keys]))
        correlations = [_correlation(runs[scheme][key]['counts']) for key in keys]
        cells.append(f'{np.mean(correlations):.2f}')
        own, other = (
            np.array([runs[name][key]['MAE'] for key in keys], dtype=np.float64)
            for name in (scheme, baseline)
        )
        difference = own - other
        if scheme == baseline:
            cells += ['', '']
        else:
            cells.append(f'{difference.mean():+.1f}')
            if len(keys) > 1 and np.isfinite(difference).all():
                low, high = paired_interval(difference)
                cells.append(f'[{low:+.1f}, {high:+.1f}]')
            else:
                cells.append('')
        rows.append([*cells, str(len(keys))])
    constant = [_constant_errors(runs[baseline][key]) for key in keys]
    cells = [_spread([errors[metric] for errors in constant]) for metric in _METRICS]
    rows.append(['*mean of the training counts*', *cells, '0.00', '', '', ''])
    for name, (mae, rmse) in (published or {}).items():
        rows.append([f'*{name}*', f'{mae:.1f}', f'{rmse:.1f}', *[''] * 5])
    return markdown_table(heads, rows) + '\n'


def _correlation(counts: dict[str, list[float]]) -> float:
    # None, for a count that is not finite, becomes NaN.
    truth, predicted = np.array(list(counts.values()), dtype=np.float64).T
    if len(truth) < 2 or not truth.std() * predicted.std() > 0:
        return 0.0
    return float(np.corrcoef(truth, predicted)[0, 1])


def _constant_errors(record: dict) -> dict[str, float]:
    truth = np.array([true for true, _ in record['counts'].values()])
    return count_errors(np.full_like(truth, record['train_mean']), truth)


def _spread(values: Sequence[float | None]) -> str:
    values = np.array(values, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        return f'{values.mean():.1f}'
    return f'{values.mean():.1f} ± {values.std(ddof=1):.1f}'
