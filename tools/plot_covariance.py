#!/usr/bin/env python
"""Draw the covariance maps that KalmanCovarianceHook saved in a checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from daal_mmdet.hooks.saved_covariance import SavedCovariance
from daal_mmdet.preflight import require_checkpoint, require_output_folder
from daal_mmdet.visualization.covariance_maps import draw_covariance


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, help='of a training with the hook')
    parser.add_argument(
        '--out', type=Path, help="folder of the images (default: the checkpoint's)"
    )
    parser.add_argument('--dpi', type=int, default=90)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Draw one image for each loss."""
    args = parse_args(argv)
    require_checkpoint('checkpoint', str(args.checkpoint))
    folder = args.out or args.checkpoint.parent
    require_output_folder('--out', folder)
    try:
        losses = SavedCovariance.load(args.checkpoint)
    except ValueError as error:
        sys.exit(str(error))
    folder.mkdir(parents=True, exist_ok=True)
    for saved in losses:
        figure = draw_covariance(
            saved.deviations(), saved.measured(), saved.name, saved.template_names
        )
        path = folder / f'covariance_{saved.name}.png'
        figure.savefig(path, dpi=args.dpi)
        print(f'written to {path}')


if __name__ == '__main__':
    main()
