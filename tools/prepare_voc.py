"""Turn a Pascal VOC data set into COCO JSON, one file a split."""

import argparse
from pathlib import Path

from terminaltables import AsciiTable

from daal_mmdet.datasets.voc import Conversion, convert_voc
from daal_mmdet.preflight import require_output_folder


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'root', help='folder with Annotations/, ImageSets/ and JPEGImages/'
    )
    parser.add_argument(
        '--out', required=True, help='folder for annotations/ and JPEGImages/'
    )
    parser.add_argument('--splits', nargs='+', default=['train', 'val', 'test'])
    parser.add_argument(
        '--classes',
        nargs='+',
        help='class names in the order of their ids (default: most frequent first)',
    )
    parser.add_argument(
        '--zero-based', action='store_true', help='corners are counted from 0, not 1'
    )
    parser.add_argument(
        '--copy-images', action='store_true', help='copy the images, not link them'
    )
    return parser.parse_args(argv)


def show(conversion: Conversion) -> None:
    """Print what was wrong, and a table of the classes."""
    for defect in conversion.defects:
        done = 'dropped' if defect.dropped else 'kept'
        print(f'{done}: {defect.split}/{defect.file}: {defect.reason}')
    rows = [['', *conversion.boxes, 'all']]
    rows.append(
        ['images', *conversion.images.values(), sum(conversion.images.values())]
    )
    for name in conversion.classes:
        counts = [boxes[name] for boxes in conversion.boxes.values()]
        rows.append([name, *counts, sum(counts)])
    print(AsciiTable([[str(cell) for cell in row] for row in rows]).table)
    mended = len(conversion.defects) - conversion.num_dropped
    print(f'{conversion.num_dropped} boxes dropped, {mended} defects mended')


def main(argv: list[str] | None = None) -> None:
    """Convert."""
    args = parse_args(argv)
    if not Path(args.root).is_dir():
        raise SystemExit(f'root: there is no folder {args.root!r}')
    require_output_folder('--out', args.out)
    try:
        conversion = convert_voc(
            args.root,
            args.out,
            args.splits,
            args.classes,
            one_based=not args.zero_based,
            copy_images=args.copy_images,
        )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    show(conversion)


if __name__ == '__main__':
    main()
