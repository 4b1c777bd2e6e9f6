"""From an annotation file to a subset on disk, with its images and a report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daal_mmdet.first_few import first_few
from daal_mmdet.progress import progress_bar
from daal_mmdet.whole_file import write_whole

from .annotation_file import (
    Cleaning,
    clean_annotations,
    file_name,
    is_lvis,
    read_annotations,
)
from .lvis_format import to_lvis, with_frequencies
from .subset import (
    ClassCounts,
    count_classes,
    take_classes,
    take_images,
    take_long_tail,
)

__all__ = ['SubsetOptions', 'SubsetReport', 'write_subset']


@dataclass(frozen=True)
class SubsetOptions:
    """What to keep of an annotation file, applied in this order.

    Args:
        classes: Keep these classes; None for all.
        long_tail: Keep images so that class counts follow a power law of this
            exponent; None leaves them as they are.
        minimum: Instances of a class to aim for at least, with ``long_tail``.
        images: Keep so many images; None for all.
        lvis_folder: Turn a COCO file into LVIS v1's format, whose image paths begin
            with this folder; None keeps the format.
        negatives: Negative classes to name in an image, with ``lvis_folder``.
        not_exhaustive: Share of the images with several instances of a class in which
            one is left out and the class listed, with ``lvis_folder``.
        frequencies: Where the letters of an LVIS file come from: 'keep' (the source),
            'recount' (the subset, for a training split), or the path of the training
            split's file.
        seed: Seed of everything drawn.
    """

    classes: Sequence[str] | None = None
    long_tail: float | None = None
    minimum: int = 1
    images: int | None = None
    lvis_folder: str | None = None
    negatives: int = 3
    not_exhaustive: float = 0.0
    frequencies: str = 'keep'
    seed: int = 0


@dataclass(frozen=True)
class SubsetReport:
    """What a subset holds.

    Attributes:
        source: Counts of the source file, cleaned, of the subset's classes.
        subset: Counts of the subset.
        source_images: Number of images of the source file, cleaned.
        subset_images: Number of images of the subset.
        frequencies: LVIS's letter of each class; empty for COCO.
        cleaning: What was broken in the source file and left out.
    """

    source: ClassCounts
    subset: ClassCounts
    source_images: int
    subset_images: int
    frequencies: tuple[str, ...]
    cleaning: Cleaning


def write_subset(
    source: str | os.PathLike,
    out: str | os.PathLike,
    options: SubsetOptions,
    image_dir: str | os.PathLike | None = None,
    copy_images_to: str | os.PathLike | None = None,
    progress: bool = True,
) -> SubsetReport:
    """Write a subset of an annotation file, and optionally copy its images.

    Args:
        source: A COCO or LVIS annotation file.
        out: The file to write, whole or not at all; its folder is made.
        options: What to keep.
        image_dir: Folder of the images. With it, images that are listed but not there
            are left out; without, the file is believed.
        copy_images_to: Folder to copy the kept images to; needs ``image_dir``.
        progress: Show a progress bar while copying.

    Returns:
        What was kept and what was left out.

    Raises:
        FileNotFoundError: If the source, the training file or a folder is missing.
        TypeError, ValueError: If a file is no annotation file, an option does not fit,
            or nothing is left; the message names it.
    """
    if copy_images_to is not None and image_dir is None:
        raise ValueError('copy_images_to: needs image_dir, where the images are')
    if image_dir is not None and not Path(image_dir).is_dir():
        raise FileNotFoundError(f'image_dir: there is no folder {str(image_dir)!r}')
    read = [('source', source)]
    if options.frequencies not in ('keep', 'recount'):
        read.append(('file of the frequencies', options.frequencies))
    for name, path in read:
        # Also by way of a link.
        if os.path.realpath(out) == os.path.realpath(path):
            raise ValueError(f'out: {str(out)!r} is the {name} itself')

    def exists(name: str) -> bool:
        return (Path(image_dir) / name).is_file()

    document, cleaning = clean_annotations(
        read_annotations(source), None if image_dir is None else exists
    )
    whole = document
    if options.classes is not None:
        document = take_classes(document, options.classes)
    before = count_classes(document)
    if options.long_tail is not None:
        document = take_long_tail(
            document, options.long_tail, options.minimum, options.seed
        )
    if options.images is not None:
        document = take_images(document, options.images, options.seed)
    names = [file_name(image) for image in document['images']]
    if copy_images_to is not None or options.lvis_folder is not None:
        _require_relative(source, names)
    document = _in_format(document, options, whole)
    if not document['images']:
        raise ValueError('\n'.join([f'{source}: no image is left', *cleaning.lines()]))
    if copy_images_to is not None:
        _copy_images(Path(image_dir), Path(copy_images_to), names, progress)
    write_whole(out, json.dumps(document))
    return SubsetReport(
        source=before,
        subset=count_classes(document),
        source_images=len(whole['images']),
        subset_images=len(document['images']),
        frequencies=tuple(
            c['frequency'] for c in document['categories'] if 'frequency' in c
        ),
        cleaning=cleaning,
    )


def _require_relative(source: str | os.PathLike, names: Iterable[str]) -> None:
    """Refuse names that would lead out of a folder that they are put below."""
    leading_out = [
        name for name in names if os.path.isabs(name) or '..' in Path(name).parts
    ]
    if leading_out:
        raise ValueError(
            f'{source}: expected file names below the folder of the images, got '
            f'{first_few(leading_out)}'
        )


def _in_format(document: dict, options: SubsetOptions, source: dict) -> dict:
    """The document in LVIS's format if asked for, with the frequencies asked for."""
    if options.frequencies == 'keep':
        train = source
    elif options.frequencies == 'recount':
        train = document
    else:
        train, _ = clean_annotations(read_annotations(options.frequencies))
    if options.lvis_folder is not None:
        return to_lvis(
            document,
            train,
            options.lvis_folder,
            options.negatives,
            options.not_exhaustive,
            options.seed,
        )
    if options.frequencies == 'keep':
        return document
    if not is_lvis(document):
        raise ValueError(
            'frequencies: a COCO file has none; turn it into an LVIS file with '
            'lvis_folder'
        )
    return with_frequencies(document, train)


def _copy_images(source: Path, target: Path, names: list[str], progress: bool) -> None:
    with progress_bar(
        total=len(names), desc='Copying images', unit='image', disable=not progress
    ) as bar:
        for name in names:
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not (path.exists() and path.samefile(source / name)):
                shutil.copyfile(source / name, path)
            bar.update()
