"""Write the generated long-tailed detection data set to a folder."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from daal_mmdet.datasets import LongTailScenes, make_long_tail

HELP = {
    'num_train': 'training images',
    'num_val': 'validation images',
    'num_test': 'test images',
    'instances_per_image': 'mean number of objects in an image',
    'exponent': 'Zipf exponent of the training counts, 0 for a balanced set',
    'eval_exponent': 'Zipf exponent of the validation and test counts',
    'min_instances': 'smallest number of objects of a class in each split',
    'image_size': 'width and height in pixels',
    'object_size': 'smallest and largest diameter, as shares of the shorter side',
    'min_visible': 'smallest visible share of each object',
    'clutter': 'amount of background strokes and blobs',
    'seed': 'seed of everything',
}


def parse_args(argv: list[str] | None = None) -> tuple[Path, LongTailScenes]:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('root', type=Path, help='folder to create')
    for field in fields(LongTailScenes):
        pair = isinstance(field.default, tuple)
        kind = type(field.default[0] if pair else field.default)
        parser.add_argument(
            f'--{field.name.replace("_", "-")}',
            type=kind,
            nargs=2 if pair else None,
            default=field.default,
            help=HELP[field.name],
        )
    args = vars(parser.parse_args(argv))
    root = args.pop('root')
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in args.items()}
    try:
        return root, LongTailScenes(**values)
    except ValueError as error:
        parser.error(str(error))


def main(argv: list[str] | None = None) -> int:
    """Write the data set; mistakes end with one line, not a traceback."""
    root, arguments = parse_args(argv)
    try:
        print(make_long_tail(root, arguments))
    except (ValueError, FileExistsError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        # Not looked at before: a finished set may lie where nothing can be written.
        reason = error.strerror or error
        print(
            f"error: root: '{root}' cannot be written to ({reason}); name another "
            'folder',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
