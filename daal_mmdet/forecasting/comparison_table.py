"""Markdown table of a comparison of losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daal_mmdet.markdown_table import markdown_table
from daal_mmdet.paired_interval import paired_interval

__all__ = ['comparison_table']

_METRICS = ('MSE', 'MAE', 'MASE')


def comparison_table(
    records: Sequence[dict], baseline: str, metric: str = 'MAE'
) -> str:
    """Mean and standard deviation over seeds, and the difference to a baseline.

    A difference pairs runs of one seed; a negative one is better than the baseline. Its
    interval is a 95 % bootstrap interval of the mean. A single seed has neither spread
    nor interval.

    Args:
        records: Runs as :func:`~daal_mmdet.forecasting.comparison.run_comparison`
            returns them, of one split.
        baseline: Name of the loss to compare with.
        metric: Metric whose differences are shown, 'MSE', 'MAE' or 'MASE'.

    Raises:
        ValueError: If the baseline is not there, or seeds differ between losses.
    """
    conditions = list(dict.fromkeys(record['condition'] for record in records))
    losses = list(dict.fromkeys(record['loss'] for record in records))
    if baseline not in losses:
        raise ValueError(f'baseline: expected one of {losses}, got {baseline!r}')
    difference_head = f'{metric} - {baseline}'
    heads = ['targets', 'loss', *_METRICS, difference_head, '95 % interval', 'seeds']
    rows = []
    for condition in conditions:
        values = {loss: _by_seed(records, condition, loss) for loss in losses}
        seeds = sorted(values[baseline])
        for loss in losses:
            if sorted(values[loss]) != seeds:
                raise ValueError(
                    f'seeds: {baseline} on {condition} targets has {seeds}, {loss} has '
                    f'{sorted(values[loss])}'
                )
            cells = [condition, loss]
            for name in _METRICS:
                column = np.array([values[loss][seed][name] for seed in seeds])
                cell = _number(column.mean())
                if len(seeds) > 1:
                    cell += f' ± {_number(column.std(ddof=1))}'
                cells.append(cell)
            difference = np.array(
                [
                    values[loss][seed][metric] - values[baseline][seed][metric]
                    for seed in seeds
                ]
            )
            if loss == baseline:
                cells += ['', '']
            else:
                cells.append(_number(difference.mean(), sign=True))
                bounds = paired_interval(difference) if len(seeds) > 1 else ()
                words = ', '.join(_number(bound, sign=True) for bound in bounds)
                cells.append(words and f'[{words}]')
            rows.append([*cells, str(len(seeds))])
    return markdown_table(heads, rows, labels=2) + '\n'


def _by_seed(records: Sequence[dict], condition: str, loss: str) -> dict[int, dict]:
    return {
        record['seed']: record
        for record in records
        if record['condition'] == condition and record['loss'] == loss
    }


def _number(value: float, sign: bool = False) -> str:
    """Three decimals below 10, two below 100, then one."""
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f'{value:+.{digits}f}' if sign else f'{value:.{digits}f}'
