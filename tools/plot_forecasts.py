#!/usr/bin/env python
"""Draw the forecasts and gains of a finished comparison of forecasting losses."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from daal_mmdet.forecasting.comparison import latest_records
from daal_mmdet.forecasting.finished_run import FinishedRun
from daal_mmdet.preflight import require_picture
from daal_mmdet.run_records import first_of_other_settings
from daal_mmdet.visualization.forecasting import Forecasts, Gains, draw_forecasts


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='--out of tools/compare_forecasts.py')
    parser.add_argument('output', type=Path, help='image to write')
    parser.add_argument(
        '--condition', default='clean', help='training targets of the forecasts shown'
    )
    parser.add_argument(
        '--gain-conditions',
        nargs='*',
        default=['clean', 'outliers'],
        help='training targets whose gains are shown, of the smallest seed',
    )
    parser.add_argument(
        '--start', type=float, default=1700, help='time of the first step'
    )
    parser.add_argument('--label', default='sunspot number', help='name of the values')
    parser.add_argument('--dpi', type=int, default=90)
    args = parser.parse_args(argv)
    records = [r for r in latest_records(args.folder) if r['split'] == 'test']
    known = sorted({record['condition'] for record in records})
    for condition in (args.condition, *args.gain_conditions):
        if condition not in known:
            parser.error(f'{args.folder} has test runs of {known}, not {condition!r}')
    other = first_of_other_settings(records, ('loss', 'condition'))
    if other is not None:
        print(
            f'the runs of {other["loss"]!r} on {other["condition"]} targets are of '
            'several settings or versions of the code, which the picture mixes',
            file=sys.stderr,
        )
    args.records = records
    return args


def draw(args: argparse.Namespace) -> Figure:
    """Draw the figure that the command line names."""
    shown = [r for r in args.records if r['condition'] == args.condition]
    losses = list(dict.fromkeys(record['loss'] for record in shown))
    forecasts = []
    for loss in losses:
        runs = [FinishedRun(args.folder, r) for r in shown if r['loss'] == loss]
        first = runs[0].forecasts()[0]
        values = np.mean([run.forecasts()[1][..., 0] for run in runs], 0)
        forecasts.append(Forecasts(loss, first, values))
    gains = []
    for loss in losses:
        for condition in args.gain_conditions:
            same = [
                r
                for r in args.records
                if r['loss'] == loss and r['condition'] == condition
            ]
            if not same:
                continue
            run = FinishedRun(args.folder, min(same, key=lambda r: r['seed']))
            gain = run.gains()
            if gain is not None:
                name = f'{loss}, {condition}'
                gains.append(Gains(name, run.targets()[:, 0], gain.mean(1)))
    meta = runs[0].test.metainfo
    series = runs[0].test.values[:, 0] * meta['std'][0] + meta['mean'][0]
    seeds = len({record['seed'] for record in shown})
    return draw_forecasts(
        series,
        forecasts,
        gains,
        args.start,
        args.label,
        f'Losses on {args.condition} targets, mean forecast of {seeds} seeds',
    )


def main(argv: list[str] | None = None) -> None:
    """Draw the figure."""
    args = parse_args(argv)
    require_picture('output', args.output)
    try:
        figure = draw(args)
    except FileNotFoundError as error:
        # What a run left behind, or its series.
        raise SystemExit(str(error)) from error
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=args.dpi)
    print(f'written to {args.output}')


if __name__ == '__main__':
    main()
