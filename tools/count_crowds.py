#!/usr/bin/env python
"""Train the schemes of a counting experiment and write the table that compares them."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

import daal_mmdet  # noqa: F401 - registers its modules
from daal_mmdet.counting.comparison import (
    RECORDS,
    latest_records,
    paired_runs,
    run_schemes,
)
from daal_mmdet.counting.comparison_table import scheme_table
from daal_mmdet.preflight import hold_folder, require_data, require_output_folder
from daal_mmdet.progress import progress_bar
from daal_mmdet.run_records import read_records

SCHEMES = {
    'CSRNet': '',
    'CSRNet + BNM': '_bnm',
    'CSRNet + 0.05 BNM': '_bnm_005',
    'CSRNet + A-BNM': '_abnm',
}
FOLDS = range(5)
# MAE and RMSE of Li et al., CVPR 2018: full width, VGG-16 weights, the whole set.
PUBLISHED = {
    'shanghaitech_a': (68.2, 115.0),
    'shanghaitech_b': (10.6, 16.0),
    'ucf_cc_50': (266.1, 397.5),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config',
        type=Path,
        help='config of the plain scheme, as configs/counting/csrnet_small_ucf_cc_50.py'
        '; the others are found by their endings',
    )
    parser.add_argument(
        '--schemes', nargs='+', choices=SCHEMES, default=list(SCHEMES), metavar='NAME'
    )
    parser.add_argument(
        '--folds', type=int, nargs='+', help='folds of UCF_CC_50 (default: all five)'
    )
    parser.add_argument(
        '--seeds', type=int, help='number of seeds (default: 1; of a report: all)'
    )
    parser.add_argument('--first-seed', type=int, default=0)
    parser.add_argument(
        '--data-root', help="folder of the data set (default: the config's)"
    )
    parser.add_argument(
        '--out', type=Path, help='folder (default: work_dirs/<name of the config>)'
    )
    parser.add_argument(
        '--report',
        action='store_true',
        help='train nothing; write the table of the runs that are there, of the folds '
        'and seeds that all schemes have; if some have the settings of this call, of '
        'these alone',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings of all configs, as optim_wrapper.optimizer.lr=0.001',
    )
    args = parser.parse_args(argv)
    if args.seeds is not None and args.seeds < 1:
        parser.error(f'--seeds: expected a number > 0, got {args.seeds}')
    folds = args.folds or []
    if len(set(folds)) < len(folds) or not set(folds) <= set(FOLDS):
        parser.error(f'--folds: expected some of {list(FOLDS)}, each once, got {folds}')
    for scheme in args.schemes:
        if not _path(args.config, scheme).is_file():
            parser.error(f'there is no config {_path(args.config, scheme)}')
    data_root = None if args.report else args.data_root
    if data_root is not None and not Path(data_root).is_dir():
        parser.error(f'--data-root: there is no folder {data_root!r}')
    if args.out is None:
        args.out = Path('work_dirs') / args.config.stem
    return args


def _path(plain: Path, scheme: str) -> Path:
    return plain.with_name(f'{plain.stem}{SCHEMES[scheme]}.py')


def _published(config: Path) -> dict[str, tuple[float, float]]:
    for name, errors in PUBLISHED.items():
        if config.stem.endswith(name):
            return {'CSRNet as published': errors}
    return {}


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then print and write the table."""
    args = parse_args(argv)
    configs = {s: Config.fromfile(_path(args.config, s)) for s in args.schemes}
    for config in configs.values():
        config.merge_from_dict(args.cfg_options)
        if args.data_root is not None:
            for loader in ('train', 'test'):
                config[f'{loader}_dataloader'].dataset.data_root = args.data_root
    has_folds = 'fold' in next(iter(configs.values())).test_dataloader.dataset
    if args.folds and not has_folds:
        raise SystemExit(f'--folds: the data set of {args.config} has none')
    folds = (args.folds or list(FOLDS)) if has_folds else [None]
    seeds = range(args.first_seed, args.first_seed + (args.seeds or 1))
    require_output_folder('--out', args.out)
    if args.report:
        try:
            found = latest_records(args.out, configs)
            asked = seeds if args.seeds or args.first_seed else None
            records = paired_runs(found, args.schemes, args.folds, asked)
        except ValueError as error:
            raise SystemExit(f'--report: {error}') from error
        others = len(read_records(args.out / RECORDS)) - len(records)
        if others:
            print(f'{others} other runs are no part of the table')
    else:
        for config in configs.values():
            for part in ('train', 'test'):
                require_data(config, part)
        total = len(configs) * len(folds) * len(seeds)
        try:
            with (
                hold_folder('--out', args.out),
                progress_bar(total=total, desc='trainings', unit='run') as bar,
            ):
                records = run_schemes(
                    configs, folds, seeds, args.out, on_done=lambda record: bar.update()
                )
        except FileNotFoundError as error:
            # An image or its points, in a folder of something else.
            raise SystemExit(str(error)) from error
    table = scheme_table(records, records[0]['scheme'], _published(args.config))
    path = args.out / 'table.md'
    path.write_text(table, encoding='utf-8')
    print(f'{table}\nwritten to {path}')


if __name__ == '__main__':
    main()
