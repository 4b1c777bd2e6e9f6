#!/usr/bin/env python
"""Train a matrix of variants and seeds, and write the table that compares them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

# mmdet reports optional packages that it did not find; none of them is needed.
warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
with contextlib.redirect_stdout(io.StringIO()):
    import daal_mmdet  # noqa: F401 - registers its modules
    from daal_mmdet.benchmark.adoption import adopt_run
    from daal_mmdet.benchmark.figures import benchmark_figures
    from daal_mmdet.benchmark.matrix import Failure, MatrixFolder, Running, run_matrix
    from daal_mmdet.benchmark.spec import BenchmarkSpec, PlannedRun, load_spec
    from daal_mmdet.benchmark.table import SPLITS, benchmark_table, select_records
    from daal_mmdet.data_check import require_sound_data
    from daal_mmdet.preflight import (
        require_data,
        require_output_folder,
        require_weights,
    )
    from daal_mmdet.progress import progress_bar
    from daal_mmdet.run_records import read_records

_BAR_FORMAT = '{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining}{postfix}'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Interrupted or killed, the same command goes on where it was.',
    )
    parser.add_argument('spec', type=Path, help='as in configs/benchmark')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/benchmark'),
        help='folder of runs and records; specs that share it share equal runs',
    )
    parser.add_argument('--jobs', type=int, default=1, help='runs at once')
    parser.add_argument(
        '--threads', type=int, help='CPU threads of each (default: its share)'
    )
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of the spec's")
    parser.add_argument(
        '--schedule',
        type=int,
        help='epochs, or iterations where the config counts those, instead of its own',
    )
    parser.add_argument(
        '--name',
        help='folder of table and figures in OUT (default: the name of the spec, and '
        'schedule, backbone weights, baseline and records if they are other ones)',
    )
    parser.add_argument(
        '--variants', nargs='+', help='run these of the spec alone; the table shows all'
    )
    parser.add_argument(
        '--baseline',
        metavar='VARIANT',
        help="what the others are compared with (default: the spec's)",
    )
    parser.add_argument(
        '--split',
        choices=SPLITS,
        default='test',
        help='part that the table shows; make choices on val',
    )
    parser.add_argument(
        '--adopt',
        type=Path,
        nargs='+',
        default=[],
        metavar='WORK_DIR',
        help='finished trainings of tools/train.py to take as runs of this matrix',
    )
    parser.add_argument(
        '--table-only',
        action='store_true',
        help='train nothing: table and figures of the records that are there',
    )
    parser.add_argument(
        '--records',
        type=Path,
        help='for --table-only: take the records of this file by the name of data set '
        'and variant, whatever their configs (default: those of OUT/runs.jsonl whose '
        'config is that of the spec)',
    )
    parser.add_argument(
        '--no-data-check',
        action='store_true',
        help='take the annotation files as they are, unseen',
    )
    parser.add_argument('--dpi', type=int, default=90, help='of the figures')
    args = parser.parse_args(argv)
    for name in ('jobs', 'threads', 'dpi'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name}: expected a number > 0, got {value}')
    if args.records is not None and not args.table_only:
        parser.error('--records: only with --table-only')
    if args.records is not None and not args.records.is_file():
        parser.error(f'--records: there is no file {str(args.records)!r}')
    return args


def choose(
    plan: Sequence[PlannedRun], spec: BenchmarkSpec, variants: Sequence[str] | None
) -> list[PlannedRun]:
    """Runs of some variants.

    Raises:
        ValueError: If one is not in the spec.
    """
    unknown = [name for name in variants or () if name not in spec.variants]
    if unknown:
        raise ValueError(
            f'--variants: expected some of {list(spec.variants)}, got {unknown}'
        )
    return [run for run in plan if not variants or run.variant in variants]


def table_folder(args: argparse.Namespace, run: PlannedRun) -> str:
    """Another name for another schedule, start, baseline or file of records."""
    words = [args.spec.stem]
    if args.schedule is not None:
        words.append(f'{args.schedule}{run.length[0].removeprefix("max_")}')
    if run.start is not None:
        words.append(run.start.stem)
    if args.baseline is not None:
        words += ['to', *re.findall(r'\w+', args.baseline)]
    if args.records is not None:
        words += ['of', args.records.stem]
    return '_'.join(words)


def setting_of(records: Sequence[dict], path: Path) -> str:
    """Schedule and start of records from elsewhere; the file's name if they lack it."""
    settings = {record.get('setting') for record in records}
    (setting,) = settings if len(settings) == 1 else (None,)
    return f'records of {path.name}' if setting is None else setting


def run_with_bar(
    plan: Sequence[PlannedRun], folder: MatrixFolder, args: argparse.Namespace
) -> list[Failure]:
    """Run what is missing and show how far it is."""
    done = folder.find(plan)
    missing = [run for run in plan if run not in done]
    if not missing:
        print(f'All {len(plan)} runs are finished in {folder.root}.')
        return []
    for run in missing:
        require_weights(run.config)
        for part in ('train', 'val', 'test'):
            require_data(run.config, part)
    if not args.no_data_check:
        require_sound_data(run.config for run in missing)
    share_before = (len(done) + sum(map(folder.progress, missing))) / len(plan)
    with progress_bar(
        total=1, initial=share_before, desc=args.spec.stem, bar_format=_BAR_FORMAT
    ) as bar:

        def show(running: Sequence[Running], finished: int, share: float) -> None:
            names = '; '.join(f'{p.run} {folder.progress(p.run):.0%}' for p in running)
            bar.set_postfix_str(f'{finished}/{len(plan)} runs; {names}', False)
            bar.update(max(0.0, share - bar.n))

        _, failures = run_matrix(
            plan, folder, args.jobs, args.threads, on_progress=show
        )
    return failures


def print_failures(failures: Sequence[Failure]) -> None:
    """Say which runs ended with an error."""
    for failure in failures:
        print(f'\nFAILED: {failure}', file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, then print and write the table."""
    args = parse_args(argv)
    failures: list[Failure] = []
    require_output_folder('--out', args.out)
    try:
        spec = load_spec(args.spec)
        given = dict(
            seeds=args.seeds and tuple(args.seeds),
            schedule=args.schedule,
            baseline=args.baseline,
        )
        spec = dataclasses.replace(
            spec, **{name: value for name, value in given.items() if value is not None}
        )
        folder = MatrixFolder(args.out.resolve())
        plan = spec.plan()
        # Of the code and data of now, whatever changes while the runs go on.
        hashes = {run.variant: run.hash for run in plan}
        chosen = choose(plan, spec, args.variants)
        for path in args.adopt:
            print(f'{path}: {adopt_run(path, plan, folder)}')
        if not args.table_only:
            failures = run_with_bar(chosen, folder, args)
        if args.records is None:
            # Also what a kill left unrecorded.
            folder.find(plan)
            records = select_records(folder.records(), spec, hashes)
            setting = plan[0].setting
        else:
            records = select_records(read_records(args.records), spec)
            setting = setting_of(records, args.records)
        table = benchmark_table(records, spec, args.split, setting)
    except (FileNotFoundError, TypeError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        print_failures(failures)
        return 1
    except KeyboardInterrupt:
        print(
            'interrupted; the same command goes on from the last checkpoint',
            file=sys.stderr,
        )
        return 130
    # An empty table must not replace one of an earlier call.
    shown = any(record.get(args.split) is not None for record in records)
    if shown:
        target = folder.root / (args.name or table_folder(args, plan[0]))
        target.mkdir(parents=True, exist_ok=True)
        (target / f'{args.split}_table.md').write_text(table, encoding='utf-8')
        for name, figure in benchmark_figures(
            records, spec, folder.root, plan[0], args.split, setting
        ):
            figure.savefig(target / f'{name}.png', dpi=args.dpi)
        print(f'\n{table}\nwritten to {target}')
    else:
        print(
            f'error: no table written: {args.records or folder.records_file} has no '
            f'finished run on {spec.data} with a {args.split} part',
            file=sys.stderr,
        )
    print_failures(failures)
    return 1 if failures or not shown else 0


if __name__ == '__main__':
    # A plain `kill` must end the training processes too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
