"""Finding the parts of a COCO-format data set under its root folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from daal_mmdet.datasets.annotation_file import read_annotations, repeated_names
from daal_mmdet.datasets.subset import count_classes
from daal_mmdet.first_few import first_few

__all__ = ['CocoLayout', 'CocoSplit', 'describe_split', 'find_coco_layout']

# Where each split's annotations and images may be, in the order in which we look.
_ANNOTATIONS = ('annotations/{split}.json', 'annotations/instances_{split}2017.json')
# What is read of the parts of a file.
_NEEDED = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('image_id', 'category_id', 'bbox'),
    'categories': ('id', 'name'),
}
_IMAGES = ('{split}', '{split}2017', 'images/{split}', 'images/{split}2017', 'images')


@dataclass(frozen=True)
class CocoSplit:
    """One split of a COCO-format data set.

    Attributes:
        ann_file: The annotation file.
        image_dir: The folder that its ``file_name`` entries refer to.
        image_sizes: (width, height) of each image, as the annotation file says.
        instance_counts: Number of boxes of each class, without ``iscrowd`` ones, in
            the order of :attr:`CocoLayout.classes`.
        image_counts: Number of images that show each class, likewise.
    """

    ann_file: Path
    image_dir: Path
    image_sizes: tuple[tuple[int, int], ...]
    instance_counts: tuple[int, ...]
    image_counts: tuple[int, ...]


@dataclass(frozen=True)
class CocoLayout:
    """A COCO-format data set with a training and a validation split.

    Attributes:
        root: The data set's folder.
        classes: Class names in the order of the annotation files' categories, which
            is the order in which mmdet numbers labels.
        train: The training split.
        val: The validation split.
    """

    root: Path
    classes: tuple[str, ...]
    train: CocoSplit
    val: CocoSplit


def find_coco_layout(root: str | os.PathLike) -> CocoLayout:
    """Find annotations, images and class names of a COCO-format data set.

    Annotation files may be ``annotations/{train,val}.json`` or
    ``annotations/instances_{train,val}2017.json``; images may lie in ``{train,val}/``,
    ``{train,val}2017/``, the same under ``images/``, or all in ``images/``.

    Args:
        root: The data set's folder.

    Raises:
        FileNotFoundError: If the folder, an annotation file, or an image that an
            annotation file names does not exist; the text lists what was looked for.
        ValueError: If an annotation file is no COCO detection file, holds no boxes,
            or if the two splits list different categories.
    """
    path = Path(root).resolve()
    if not path.is_dir():
        raise FileNotFoundError(f'{path} is not a folder')
    files = {split: _find_annotations(path, split) for split in ('train', 'val')}
    documents = {split: _read(file) for split, file in files.items()}
    train_categories, val_categories = (
        [(c['id'], c['name']) for c in documents[split]['categories']]
        for split in ('train', 'val')
    )
    if train_categories != val_categories:
        differing = sorted(set(train_categories) ^ set(val_categories), key=str)
        raise ValueError(
            f'{files["train"]} and {files["val"]} must list the same categories in '
            f'the same order; they differ in {differing[:5] or "their order"}'
        )
    names = [name for _, name in train_categories]
    repeated = repeated_names(documents['train'])
    if repeated:
        raise ValueError(f'{files["train"]}: category names repeat: {repeated}')
    train, val = (
        describe_split(
            files[split], _find_images(path, split, files[split], document), document
        )
        for split, document in documents.items()
    )
    return CocoLayout(path, tuple(names), train, val)


def _find_annotations(root: Path, split: str) -> Path:
    candidates = [root / pattern.format(split=split) for pattern in _ANNOTATIONS]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    folder = root / 'annotations'
    present = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else None
    seen = (
        f'{folder} does not exist'
        if present is None
        else f'{folder} holds {present[:8] or "nothing"}'
    )
    raise FileNotFoundError(
        f'no {split} annotations: looked for '
        f'{" and ".join(str(c) for c in candidates)}; {seen}'
    )


def _read(file: Path) -> dict:
    document = read_annotations(file)
    for part, keys in _NEEDED.items():
        if not document[part]:
            raise ValueError(f'{file}: {part} is empty')
        for item in document[part]:
            missing = [key for key in keys if key not in item]
            if missing:
                raise ValueError(f'{file}: {part} lack {missing}: {str(item)[:80]}')
    return document


def describe_split(ann_file: Path, image_dir: Path, document: dict) -> CocoSplit:
    """Count what the content of an annotation file holds."""
    counts = count_classes(document)
    return CocoSplit(
        ann_file=ann_file,
        image_dir=image_dir,
        image_sizes=tuple((im['width'], im['height']) for im in document['images']),
        instance_counts=tuple(counts.instances.tolist()),
        image_counts=tuple(counts.images.tolist()),
    )


def _find_images(root: Path, split: str, file: Path, document: dict) -> Path:
    candidates = [root / pattern.format(split=split) for pattern in _IMAGES]
    names = [image['file_name'] for image in document['images']]
    for candidate in candidates:
        if (candidate / names[0]).is_file():
            break
    else:
        raise FileNotFoundError(
            f'{file} names the image {names[0]}: looked for it in '
            f'{", ".join(str(c) for c in candidates)}'
        )
    missing = [name for name in names if not (candidate / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of the {len(names)} images that {file} names are not in '
            f'{candidate}: {first_few(missing)}'
        )
    return candidate
