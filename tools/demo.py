"""Train RetinaNet with FocalLoss and with DAALLoss and compare them."""

import argparse
import contextlib
import io
import signal
import sys
import warnings
from pathlib import Path

# mmdet reports optional packages that it did not find; the demo needs none of them.
warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
with contextlib.redirect_stdout(io.StringIO()):
    from daal_mmdet.demo import DemoFiles, Schedule, TrainingFailed, run_demo

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Train the same small RetinaNet with FocalLoss and with DAALLoss, '
        'print the AP of few, medium and many classes and draw a figure. Takes about '
        '6 minutes on 2 cores with the generated data set.'
    )
    parser.add_argument(
        '--data',
        type=Path,
        metavar='DIR',
        help='a data set in COCO format: annotations/{train,val}.json or '
        'annotations/instances_{train,val}2017.json, images in {train,val}/, '
        '{train,val}2017/ or images/ (default: the generated long-tailed scenes)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder for runs and results '
        '(default: work_dirs/demo, or work_dirs/demo_NAME with --data)',
    )
    parser.add_argument('--iters', type=int, help='iterations of each training')
    parser.add_argument('--size', type=int, help='longest image side in pixels')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--fresh',
        action='store_true',
        help='train again even if finished runs are there',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; mistakes in the input end with one line, not a traceback."""
    args = parse_args(argv)
    name = f'demo_{args.data.resolve().name}' if args.data else 'demo'
    files = DemoFiles(
        configs=ROOT / 'configs' / 'long_tail',
        train_script=ROOT / 'tools' / 'train.py',
        generated_data=ROOT / 'data' / 'long_tail',
        work_dir=args.work_dir or ROOT / 'work_dirs' / name,
    )
    try:
        run_demo(
            files,
            data=args.data,
            schedule=Schedule(args.iters, args.size),
            seed=args.seed,
            fresh=args.fresh,
        )
    except (FileNotFoundError, FileExistsError, ValueError, TrainingFailed) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            'interrupted; the same command goes on from the last checkpoint',
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == '__main__':
    # A plain `kill` must end the training processes too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
