#!/usr/bin/env python
"""Train mmdet's own configs for a few iterations with the losses of daal_mmdet."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import shlex
import sys
import warnings
from pathlib import Path

# mmdet reports optional packages that it did not find; none of them is needed.
warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
with contextlib.redirect_stdout(io.StringIO()):
    from daal_mmdet.compatibility import shipped_configs
    from daal_mmdet.compatibility.check_runner import run_checks
    from daal_mmdet.compatibility.model_check import CheckResult
    from daal_mmdet.compatibility.table import (
        compatibility_page,
        count_families,
        versions,
    )
    from daal_mmdet.preflight import require_output_folder
    from daal_mmdet.progress import progress_bar
    from daal_mmdet.run_records import append_record, read_records

_MAX_ATTEMPTS = 3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Without --all one config of each family is checked, a cheap one, and '
        'one for each type of head that these leave out.',
    )
    parser.add_argument('--all', action='store_true', help='every config of mmdet')
    parser.add_argument(
        '--families', nargs='+', help="folders of mmdet's configs (default: all)"
    )
    parser.add_argument('--jobs', type=int, default=1, help='processes at once')
    parser.add_argument(
        '--time-limit', type=float, default=600, help='seconds for a config'
    )
    parser.add_argument(
        '--records',
        type=Path,
        default=Path('work_dirs/compatibility.jsonl'),
        help='results, a line each; configs that are there are not checked again',
    )
    parser.add_argument(
        '--table-only',
        action='store_true',
        help='check nothing: the page of the results that are there',
    )
    parser.add_argument('--out', type=Path, help='Markdown page to write')
    args = parser.parse_args(argv)
    for name in ('jobs', 'time_limit'):
        if getattr(args, name) <= 0:
            value = getattr(args, name)
            parser.error(f'--{name.replace("_", "-")}: expected > 0, got {value}')
    if args.table_only and not args.records.is_file():
        parser.error(f'--records: there is no file {str(args.records)!r}')
    return args


def choose(args: argparse.Namespace) -> list[shipped_configs.ShippedConfig]:
    """Read mmdet's configs and choose those to check."""
    families = args.families or shipped_configs.families()
    total = sum(len(shipped_configs.config_files(family)) for family in families)
    with progress_bar(total=total, desc='reading configs', unit='file') as bar:
        return shipped_configs.choose_configs(families, args.all, bar.update)


def read_results(path: Path) -> dict[str, CheckResult]:
    """The last result of each config."""
    try:
        records = read_records(path)
    except ValueError as error:
        raise ValueError(f'records: {error}') from error
    return {record['config']: CheckResult(**record) for record in records}


def known_results(args: argparse.Namespace) -> list[CheckResult]:
    """Results of the records, the last of each config, by family.

    Raises:
        ValueError: If there are none, or none of the chosen families.
    """
    known = read_results(args.records)
    results = [
        result
        for name, result in known.items()
        if args.families is None or name.split('/')[0] in args.families
    ]
    if not known:
        raise ValueError(f'records: there is no result in {args.records}')
    if not results:
        raise ValueError(f'families: {args.records} has no result of {args.families}')
    return sorted(results, key=lambda result: result.config.split('/')[0])


def check(
    configs: list[shipped_configs.ShippedConfig], args: argparse.Namespace
) -> list[CheckResult]:
    """Check what has no record yet; return the results of all, by family.

    Where a config can't be checked (for lack of a package or a GPU), another one of the
    family or with its head is checked too.
    """
    args.records.parent.mkdir(parents=True, exist_ok=True)
    known = read_results(args.records)
    bar = progress_bar(total=len(configs), desc='checking', unit='config')
    results: dict[str, CheckResult] = {}
    with bar:
        for attempt in range(_MAX_ATTEMPTS):
            missing = [config for config in configs if config.name not in known]
            bar.update(len(configs) - len(missing))
            for result in run_checks(missing, args.jobs, args.time_limit):
                known[result.config] = result
                append_record(args.records, dataclasses.asdict(result))
                bar.set_postfix_str(f'{result.config}: {result.status}', refresh=False)
                bar.update()
            results |= {config.name: known[config.name] for config in configs}
            if attempt == _MAX_ATTEMPTS - 1 or args.all:
                break
            configs = spare_configs(results)
            bar.total += len(configs)
    return sorted(results.values(), key=lambda result: result.config.split('/')[0])


def spare_configs(
    results: dict[str, CheckResult],
) -> list[shipped_configs.ShippedConfig]:
    """Another config of each family or head of which none could be checked."""
    family = {name: name.split('/')[0] for name in results}
    checked = {n: r for n, r in results.items() if r.status != 'not checked'}
    families = {family[name] for name in checked}
    heads = {head for result in checked.values() for head in result.heads}
    missing: dict[str, set[str]] = {}
    for name in sorted(results.keys() - checked.keys()):
        left = set(results[name].heads) - heads
        if left or family[name] not in families:
            missing.setdefault(family[name], set()).update(left)
    spares = [shipped_configs.next_config(f, results, h) for f, h in missing.items()]
    return [config for config in spares if config is not None]


def main(argv: list[str] | None = None) -> int:
    """Check, write the page, and return 1 if something fails."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    if not args.table_only:
        require_output_folder('--records', args.records.parent)
    if args.out is not None:
        require_output_folder('--out', args.out.parent)
    try:
        results = known_results(args) if args.table_only else check(choose(args), args)
    except ValueError as error:
        print(f'error: --{error}', file=sys.stderr)
        return 2
    if args.out is not None:
        shown = [argument for argument in argv if argument != '--table-only']
        command = shlex.join(['python', 'tools/check_compatibility.py', *shown])
        seen = {result.config.split('/')[0] for result in results}
        left_out = [name for name in shipped_configs.families() if name not in seen]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        page = compatibility_page(results, command, versions(), left_out)
        args.out.write_text(page, encoding='utf-8')
        print(f'written to {args.out}')
    works, families = count_families(results)
    print(f'{works} of {families} families with a classification loss work')
    failed = [result for result in results if result.status == 'fails']
    for result in failed:
        print(f'FAILS: {result.config}: {result.reason}', file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
