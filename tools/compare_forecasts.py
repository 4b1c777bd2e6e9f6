#!/usr/bin/env python
"""Train a forecaster with several losses and write the table that compares them."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

from daal_mmdet.forecasting.comparison import (
    TARGET_NOISE,
    require_one_task,
    run_comparison,
)
from daal_mmdet.forecasting.comparison_table import comparison_table
from daal_mmdet.placed_dicts import bare_type
from daal_mmdet.preflight import (
    hold_folder,
    require_data,
    require_file,
    require_output_folder,
)
from daal_mmdet.progress import progress_bar

LOSSES = ('mse', 'mae', 'adaptive_dynamic', 'kalman')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--configs',
        nargs='+',
        type=Path,
        default=[Path(f'configs/forecasting/gru_sunspots_{n}.py') for n in LOSSES],
        help='configs to train; the first is the baseline (default: all of sunspots)',
    )
    parser.add_argument(
        '--conditions',
        nargs='+',
        choices=TARGET_NOISE,
        default=list(TARGET_NOISE),
        help='what happens to the training targets',
    )
    parser.add_argument('--seeds', type=int, default=10, help='number of seeds')
    parser.add_argument('--first-seed', type=int, default=0)
    parser.add_argument(
        '--split',
        choices=('val', 'test'),
        default='test',
        help='part to report; choose hyper-parameters on val',
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/forecasting'), help='folder'
    )
    parser.add_argument(
        '--metric', choices=('MSE', 'MAE', 'MASE'), default='MAE', help='to compare by'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings of all configs, as optim_wrapper.optimizer.lr=0.01',
    )
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f'--seeds: expected a number > 0, got {args.seeds}')
    return args


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then print and write the table."""
    args = parse_args(argv)
    # So small a model is slower on several threads.
    torch.set_num_threads(1)
    for path in args.configs:
        require_file('--configs', str(path))
    loaded = [Config.fromfile(path) for path in args.configs]
    names = [bare_type(config.model.loss) for config in loaded]
    if len(set(names)) < len(names):
        names = [path.stem for path in args.configs]
    if len(set(names)) < len(names):
        raise SystemExit(f'--configs: expected files of different names, got {names}')
    configs = dict(zip(names, loaded, strict=True))
    for config in loaded:
        config.merge_from_dict(args.cfg_options)
        for part in ('train', 'val', 'test'):
            require_data(config, part)
    try:
        require_one_task(configs)
    except ValueError as error:
        raise SystemExit(f'--configs: {error}') from error
    require_output_folder('--out', args.out)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    total = len(configs) * len(args.conditions) * len(seeds)
    try:
        with (
            hold_folder('--out', args.out),
            progress_bar(total=total, desc='trainings', unit='run') as bar,
        ):
            records = run_comparison(
                configs,
                args.conditions,
                seeds,
                args.out,
                args.split,
                on_done=lambda record: bar.update(),
            )
    except FloatingPointError as error:
        raise SystemExit(str(error)) from error
    table = comparison_table(records, next(iter(configs)), args.metric)
    path = args.out / f'{args.split}_table.md'
    path.write_text(table, encoding='utf-8')
    print(f'{table}\nwritten to {path}')


if __name__ == '__main__':
    main()
