"""Write a small subset of a COCO or LVIS annotation file, in its own format."""

import argparse
from pathlib import Path

from terminaltables import AsciiTable

from daal_mmdet.datasets.subset import power_law_exponent, power_law_targets
from daal_mmdet.datasets.subset_file import SubsetOptions, SubsetReport, write_subset
from daal_mmdet.preflight import require_output_folder, require_picture
from daal_mmdet.visualization.class_counts import draw_class_counts


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='annotation file of COCO or LVIS')
    parser.add_argument('--out', required=True, help='annotation file to write')
    parser.add_argument('--classes', nargs='+', help='keep these classes')
    parser.add_argument(
        '--long-tail',
        type=float,
        metavar='EXPONENT',
        help='keep images so that class counts follow a power law of their rank',
    )
    parser.add_argument(
        '--minimum',
        type=int,
        default=1,
        help='instances of a class to aim for at least, with --long-tail (default 1)',
    )
    parser.add_argument('--images', type=int, help='keep so many images')
    parser.add_argument(
        '--to-lvis',
        metavar='FOLDER',
        help='turn a COCO file into the format of LVIS v1, whose image paths begin '
        'with this folder, such as train2017',
    )
    parser.add_argument(
        '--negatives',
        type=int,
        default=3,
        help='negative classes to name in an image, with --to-lvis (default 3)',
    )
    parser.add_argument(
        '--not-exhaustive',
        type=float,
        default=0.0,
        metavar='SHARE',
        help='share of the images with several boxes of a class in which one is left '
        'out and the class listed as not exhaustive, with --to-lvis (default 0)',
    )
    parser.add_argument(
        '--frequencies',
        default='keep',
        help="where LVIS's letters come from: keep (the source), recount (the subset, "
        'for a training split), or the annotation file of the training split',
    )
    parser.add_argument(
        '--image-dir', help='folder of the images; listed ones that lack are left out'
    )
    parser.add_argument('--copy-images', metavar='FOLDER', help='copy them there')
    parser.add_argument('--plot', help='write a figure of the class counts here')
    parser.add_argument('--seed', type=int, default=0, help='seed of what is drawn')
    return parser.parse_args(argv)


def show(report: SubsetReport) -> None:
    """Print what was left out, and the counts of the classes, frequent first."""
    for line in report.cleaning.lines():
        print(line)
    source, subset = report.source, report.subset
    letters = report.frequencies or ('',) * len(subset.names)
    rows = [['class', 'frequency', 'images', 'of', 'instances', 'of']]
    order = sorted(range(len(subset.names)), key=lambda i: -subset.instances[i])
    for i in order:
        counts = (subset.images, source.images, subset.instances, source.instances)
        rows.append([subset.names[i], letters[i], *(str(c[i]) for c in counts)])
    totals = [report.subset_images, report.source_images]
    totals += [subset.instances.sum(), source.instances.sum()]
    rows.append(['all', '', *map(str, totals)])
    print(AsciiTable(rows).table)
    print(
        f'{report.subset_images} images, {subset.instances.sum()} boxes, '
        f'{(subset.instances > 0).sum()} classes; counts over rank fit an exponent of '
        f'{power_law_exponent(subset.instances):.2f} '
        f'(source {power_law_exponent(source.instances):.2f})'
    )


def main(argv: list[str] | None = None) -> None:
    """Write the subset."""
    args = parse_args(argv)
    if Path(args.out).is_dir():
        raise SystemExit(f'--out: expected a file, got the folder {args.out!r}')
    require_output_folder('--out', Path(args.out).parent)
    if args.copy_images is not None:
        require_output_folder('--copy-images', args.copy_images)
    if args.plot is not None:
        require_picture('--plot', args.plot)
    options = SubsetOptions(
        classes=args.classes,
        long_tail=args.long_tail,
        minimum=args.minimum,
        images=args.images,
        lvis_folder=args.to_lvis,
        negatives=args.negatives,
        not_exhaustive=args.not_exhaustive,
        frequencies=args.frequencies,
        seed=args.seed,
    )
    try:
        report = write_subset(
            args.source, args.out, options, args.image_dir, args.copy_images
        )
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    show(report)
    if args.plot is not None:
        targets = None
        if args.long_tail is not None:
            targets = power_law_targets(
                report.source.instances, args.long_tail, args.minimum
            )
        figure = draw_class_counts(
            report.subset.names,
            report.source.instances,
            report.subset.instances,
            targets,
            title=f'{Path(args.out).name}, a subset of {Path(args.source).name}',
        )
        Path(args.plot).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=110)


if __name__ == '__main__':
    main()
