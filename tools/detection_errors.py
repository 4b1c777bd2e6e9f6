#!/usr/bin/env python
"""What the few, medium and many classes lose to: AP without each kind of error."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path

with contextlib.redirect_stdout(io.StringIO()):
    from mmdet.datasets.api_wrappers import COCO

    from daal_mmdet.datasets.annotation_file import (
        COMPLETED,
        HARMLESS,
        clean_annotations,
        is_box,
        is_finite,
        is_lvis,
        read_annotations,
        read_json,
        repeated_names,
    )
    from daal_mmdet.evaluation.annotation_ids import count_from_one
    from daal_mmdet.evaluation.error_types import error_table
    from daal_mmdet.evaluation.few_class_coco_metric import read_groups


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='tools/test.py writes the detections, to PREFIX.bbox.json, with '
        '--cfg-options test_evaluator.outfile_prefix=PREFIX',
    )
    parser.add_argument('annotations', type=Path, help='COCO format, of these images')
    parser.add_argument('detections', type=Path, help="in the form of COCO's results")
    parser.add_argument(
        '--train-annotations',
        type=Path,
        help='they say which classes are few (default: the annotations)',
    )
    args = parser.parse_args(argv)
    args.train_annotations = args.train_annotations or args.annotations
    for path in (args.annotations, args.detections, args.train_annotations):
        if not path.is_file():
            parser.error(f'there is no file {path}')
    return args


def read_truth(path: Path) -> COCO:
    """Read the annotations.

    A box that does not say so is no crowd, and has an area of width x height.

    Raises:
        ValueError: If it is no file of COCO boxes, is one of LVIS, or has broken boxes
            or two categories of one name.
    """
    coco = COCO()
    coco.dataset = read_annotations(path)
    if is_lvis(coco.dataset):
        raise ValueError(
            f'{path} is an LVIS file, which says nothing about most classes of an '
            "image; COCO's AP would take their detections for errors"
        )
    _, cleaning = clean_annotations(coco.dataset)
    broken = [kind for kind in cleaning.counts if kind not in HARMLESS | COMPLETED]
    if broken:
        raise ValueError(f'{path}: ' + '; '.join(map(cleaning.describe, broken)))
    repeated = repeated_names(coco.dataset)
    if repeated:
        raise ValueError(f'{path}: category names repeat: {repeated}')
    for annotation in coco.dataset['annotations']:
        _, _, width, height = annotation['bbox']
        for key, value in (('iscrowd', 0), ('area', width * height)):
            if annotation.get(key) is None:
                annotation[key] = value
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    count_from_one(coco)
    return coco


def read_detections(path: Path, coco: COCO) -> list[dict]:
    """Read the detections.

    Raises:
        ValueError: If it is no list of detections, or has some on images or of
            categories that the annotations do not have.
    """
    detections = read_json(path)
    keys = {'image_id', 'category_id', 'bbox', 'score'}
    if not isinstance(detections, list) or not all(
        isinstance(d, dict) and keys <= d.keys() for d in detections
    ):
        raise ValueError(f'{path} is no list of detections with {sorted(keys)}')
    for detection in detections:
        if not is_box(detection['bbox']) or not is_finite(detection['score']):
            raise ValueError(
                f'{path}: expected a bbox of four finite numbers and a finite score, '
                f'got {detection}'
            )
    for key, what, known in (
        ('image_id', 'on {} images', coco.imgs),
        ('category_id', 'of {} categories', coco.cats),
    ):
        unknown = {d[key] for d in detections} - known.keys()
        if unknown:
            raise ValueError(
                f'{path} has detections {what.format(len(unknown))} that the '
                f'annotations do not have, such as {sorted(unknown, key=str)[0]!r}'
            )
    return detections


def main(argv: list[str] | None = None) -> None:
    """Print the table, and which classes its groups are."""
    args = parse_args(argv)
    try:
        coco = read_truth(args.annotations)
        detections = read_detections(args.detections, coco)
        names = [category['name'] for category in coco.cats.values()]
        if args.train_annotations != args.annotations:
            # Names the file where it is none, or half of one.
            read_annotations(args.train_annotations)
        groups = read_groups(str(args.train_annotations), names)
    except ValueError as error:
        sys.exit(str(error))
    groups = {group: classes for group, classes in groups.items() if classes}
    print(error_table(coco, detections, {**groups, 'all': names}))
    print()
    for group, classes in groups.items():
        print(f'- {group}: {", ".join(classes)}')


if __name__ == '__main__':
    main()
