#!/usr/bin/env python
"""Draw loss curves and example maps of a finished comparison of counting schemes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mmcv
import numpy as np
from matplotlib.figure import Figure

import daal_mmdet  # noqa: F401 - registers its modules
from daal_mmdet.counting.comparison import latest_records, paired_runs
from daal_mmdet.counting.finished_run import FinishedRun
from daal_mmdet.preflight import require_picture
from daal_mmdet.run_records import first_of_other_settings
from daal_mmdet.visualization.count_grid import CountedImage, draw_count_grid
from daal_mmdet.visualization.scheme_curves import SchemeCurves, draw_scheme_curves


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='--out of tools/count_crowds.py')
    parser.add_argument('--curves', type=Path, help='picture of the loss curves')
    parser.add_argument('--grid', type=Path, help='picture of images and maps')
    parser.add_argument(
        '--grid-schemes',
        nargs='+',
        default=['CSRNet + A-BNM', 'CSRNet'],
        help='schemes whose maps stand beside the truth',
    )
    parser.add_argument(
        '--images', nargs='+', help='names of images (default: spread over the counts)'
    )
    parser.add_argument(
        '--rows', type=int, default=3, help='number of images without --images'
    )
    parser.add_argument(
        '--maps-only', action='store_true', help='leave the images out of the grid'
    )
    parser.add_argument('--title', default='', help='heading of the pictures')
    parser.add_argument('--dpi', type=int, default=80)
    args = parser.parse_args(argv)
    if args.curves is None and args.grid is None:
        parser.error('name a picture to write: --curves or --grid')
    if args.rows < 1:
        parser.error(f'--rows: expected a number > 0, got {args.rows}')
    try:
        args.records = latest_records(args.folder)
    except ValueError as error:
        parser.error(str(error))
    other = first_of_other_settings(args.records, ('scheme', 'fold'))
    if other is not None:
        print(
            f'the runs of {other["scheme"]!r} are of several settings or versions of '
            'the code, which the pictures mix',
            file=sys.stderr,
        )
    known = list(dict.fromkeys(record['scheme'] for record in args.records))
    for scheme in args.grid_schemes if args.grid is not None else ():
        if scheme not in known:
            parser.error(f'--grid-schemes: expected some of {known}, got {scheme!r}')
    return args


def curves_of(folder: Path, records: list[dict]) -> list[SchemeCurves]:
    """Logged curves of every scheme, at the iterations that all its runs logged.

    The parts of the loss are logged from the second iteration on, a step later than
    the whole.
    """
    schemes = []
    for name in dict.fromkeys(record['scheme'] for record in records):
        runs = [FinishedRun(folder, r) for r in records if r['scheme'] == name]
        logged = {}
        for key in ('loss', 'counting_task', 'counting_lambda', 'counting_bnm'):
            curves = [dict(zip(*run.curve(key), strict=True)) for run in runs]
            if all(curves):
                logged[key] = curves
        every = [set(curve) for curves in logged.values() for curve in curves]
        steps = np.array(sorted(set.intersection(*every) if every else ()))
        if 'counting_task' not in logged or not len(steps):
            raise SystemExit(
                f'--curves: expected an iteration at which all runs of {name!r} logged '
                'the loss and its parts, got none; train longer, or log more often '
                'with default_hooks.logger.interval'
            )
        stacked = {
            key: np.array([[curve[step] for step in steps] for curve in curves])
            for key, curves in logged.items()
        }
        schemes.append(
            SchemeCurves(
                name,
                steps,
                stacked['loss'],
                stacked['counting_task'],
                stacked.get('counting_lambda'),
                stacked.get('counting_bnm'),
            )
        )
    return schemes


def images_of(
    folder: Path,
    records: list[dict],
    schemes: list[str],
    names: list[str] | None,
    rows: int,
) -> list[CountedImage]:
    """Held-out images with the maps of each scheme's run of the smallest seed.

    Without names they are spread evenly over the true counts, so not chosen by how well
    they are counted.
    """
    try:
        records = paired_runs(records, schemes)
    except ValueError as error:
        raise SystemExit(f'--grid-schemes: {error}') from error
    seed = min(record['seed'] for record in records)
    # Each image is held out in one fold.
    runs = {
        (record['scheme'], name): record
        for record in records
        if record['seed'] == seed
        for name in record['counts']
    }
    known = [name for scheme, name in runs if scheme == schemes[0]]
    if names is None:
        known.sort(key=lambda name: runs[schemes[0], name]['counts'][name][0])
        rows = min(rows, len(known))
        places = (np.arange(rows) + 0.5) / rows * len(known)
        names = [known[int(place)] for place in places]
    images = []
    for name in names:
        if name not in known:
            raise SystemExit(
                f'--images: expected some of {sorted(known)}, got {name!r}'
            )
        predicted = {}
        for scheme in schemes:
            run = FinishedRun(folder, runs[scheme, name])
            path, truth, predicted[scheme] = run.predict(name)
        images.append(
            CountedImage(
                name,
                mmcv.imread(path, channel_order='rgb'),
                truth,
                round(run.counts[name][0]),
                predicted,
            )
        )
    return images


def draw(args: argparse.Namespace) -> dict[Path, Figure]:
    """Draw the figures that the command line names."""
    figures = {}
    if args.curves is not None:
        curves = curves_of(args.folder, args.records)
        figures[args.curves] = draw_scheme_curves(curves, args.title)
    if args.grid is not None:
        images = images_of(
            args.folder, args.records, args.grid_schemes, args.images, args.rows
        )
        figures[args.grid] = draw_count_grid(
            images, args.title, photos=not args.maps_only
        )
    return figures


def main(argv: list[str] | None = None) -> None:
    """Draw the figures."""
    args = parse_args(argv)
    for name, path in (('--curves', args.curves), ('--grid', args.grid)):
        if path is not None:
            require_picture(name, path)
    try:
        figures = draw(args)
    except FileNotFoundError as error:
        # What a run left behind, or its data.
        raise SystemExit(str(error)) from error
    for path, figure in figures.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=args.dpi)
        print(f'written to {path}')


if __name__ == '__main__':
    main()
