"""Reading COCO and LVIS annotation files, and leaving out what is broken in them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    'COMPLETED',
    'HARMLESS',
    'PASSED_OVER',
    'WITHOUT_MASK',
    'Cleaning',
    'clean_annotations',
    'file_name',
    'is_box',
    'is_finite',
    'is_id',
    'is_learned',
    'is_lvis',
    'read_annotations',
    'read_json',
    'repeated_names',
]

_KEYS = ('images', 'annotations', 'categories')
# Where mmdet and the evaluations read one and stop if there is none.
_AREA = 'boxes without their area, which is taken as width x height'
_ISCROWD = 'boxes without iscrowd, which is taken as 0'
COMPLETED = frozenset({_AREA, _ISCROWD})
_NO_AREA = 'boxes without area'
_OUTSIDE = 'boxes outside their image'
# mmdet takes these as they are, in training and in evaluation.
HARMLESS = frozenset({_NO_AREA, _OUTSIDE})
_OF_NO_IMAGE = 'annotations of an image that is not there'
# Both ask for the annotations of the images that are listed, and see no others.
PASSED_OVER = frozenset({_OF_NO_IMAGE})
WITHOUT_MASK = 'objects without a mask'
# mmdet holds a box in float32, where more than this is infinite.
_LARGEST = 3.4e38


@dataclass
class Cleaning:
    """What :func:`clean_annotations` left out or completed.

    Attributes:
        counts: How often each kind of defect was met.
        examples: One defect of each kind, with its values.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Count one defect."""
        self.counts[kind] += 1
        self.examples.setdefault(kind, example)

    def lines(self) -> list[str]:
        """One line a kind of defect: how many, what, and the first of them."""
        return [
            f'{"completed" if kind in COMPLETED else "left out"}: {self.describe(kind)}'
            for kind in self.counts
        ]

    def describe(self, kind: str) -> str:
        """How many of one kind of defect, and the first of them."""
        return f'{self.counts[kind]} {kind} (the first: {self.examples[kind]})'


def read_annotations(path: str | os.PathLike) -> dict:
    """Read a COCO or LVIS detection file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, no detection file, or half of one; the message
            names the file and what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'annotations: there is no file {str(path)!r}')
    document = read_json(path)
    missing = [k for k in _KEYS if not isinstance(document, dict) or k not in document]
    if missing:
        raise ValueError(f'{path} is no COCO detection file: it lacks {missing}')
    for key in _KEYS:
        items = document[key]
        if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
            raise ValueError(f'{path}: {key} is no list of objects')
    return document


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        ValueError: If it is none, or half of one; the message names the file.
    """
    try:
        # As mmdet reads it, which takes no byte order mark.
        return json.loads(path.read_bytes().decode('utf-8'))
    # Also of bytes that are no text, and of a number with thousands of digits.
    except ValueError as error:
        raise ValueError(f'{path} is no JSON, or only part of one: {error}') from error


def is_lvis(document: dict) -> bool:
    """Whether a document has the keys that LVIS adds to COCO's."""
    return bool(document['images']) and 'neg_category_ids' in document['images'][0]


def clean_annotations(
    document: dict,
    image_exists: Callable[[str], bool] | None = None,
    masks: bool = False,
) -> tuple[dict, Cleaning]:
    """Leave out the images, categories and boxes that training could stumble over.

    Left out are, each counted: images without an id, size or file name, images whose id
    stands there before, images that ``image_exists`` does not find; categories without
    an id or name and those whose id stands there before; annotations of an image or
    category that is not (or no longer) there, whose id stands there before, without a
    box of four finite numbers, with no width, height or area, wholly outside their
    image, or where ``masks`` are needed without one. Counted too, and completed, are
    boxes that do not give their ``area`` or, in COCO's format, ``iscrowd``; LVIS has no
    crowds.

    Args:
        document: A COCO or LVIS detection document; stays as it is.
        image_exists: Whether an image's ``file_name`` (LVIS v1: the end of its
            ``coco_url``) is there; None trusts the document.
        masks: Whether each object needs its ``segmentation``.

    Returns:
        A document of what is left, sharing its items that are whole, and what was left
        out.
    """
    cleaning = Cleaning()
    images = []
    for image in _unique(document['images'], 'image', cleaning):
        name = file_name(image)
        size = (image.get('width'), image.get('height'))
        if not all(_is_positive(side) for side in size):
            cleaning.add('images without a size', f'id {image["id"]}, size {size}')
        elif not isinstance(name, str):
            cleaning.add(
                'images without a file name', f'id {image["id"]}, file name {name}'
            )
        elif image_exists is not None and not image_exists(name):
            cleaning.add('images that are listed but not there', name)
        else:
            images.append(image)
    categories = []
    for category in _unique(document['categories'], 'category', cleaning):
        if isinstance(category.get('name'), str):
            categories.append(category)
        else:
            cleaning.add('categories without a name', f'id {category["id"]}')

    image_of_id = {image['id']: image for image in images}
    category_ids = {category['id'] for category in categories}
    lvis = is_lvis(document)
    annotations = []
    for annotation in _unique(document['annotations'], 'annotation', cleaning):
        kind, value = _defect(annotation, image_of_id, category_ids, masks)
        if kind:
            cleaning.add(kind, f'annotation {annotation["id"]}, {value}')
            continue
        if annotation.get('area') is None:
            cleaning.add(_AREA, f'annotation {annotation["id"]}')
            _, _, width, height = annotation['bbox']
            annotation = {**annotation, 'area': width * height}
        if annotation.get('iscrowd') is None and not lvis:
            cleaning.add(_ISCROWD, f'annotation {annotation["id"]}')
            annotation = {**annotation, 'iscrowd': 0}
        annotations.append(annotation)
    parts = dict(images=images, annotations=annotations, categories=categories)
    return {**document, **parts}, cleaning


def file_name(image: dict) -> str:
    """The path of an image below the data set's image folder.

    As mmdet: ``file_name``; in LVIS v1, which has none, what follows the host in
    ``coco_url``, such as ``train2017/000000000009.jpg``. What is no string is returned
    as it is.
    """
    if 'file_name' in image:
        return image['file_name']
    url = image.get('coco_url', '')
    if not isinstance(url, str):
        return url
    return url.replace('http://images.cocodataset.org/', '')


def _unique(items: Iterable[dict], noun: str, cleaning: Cleaning) -> Iterable[dict]:
    seen = set()
    plural = {'category': 'categories'}.get(noun, f'{noun}s')
    for item in items:
        # pandas writes floats.
        if not isinstance(item.get('id'), str) and not is_finite(item.get('id')):
            cleaning.add(f'{plural} without an id', str(item)[:80])
        elif item['id'] in seen:
            cleaning.add(f'{plural} whose id is used before', f'id {item["id"]}')
        else:
            seen.add(item['id'])
            yield item


def repeated_names(document: dict) -> list[str]:
    """Names that several categories have."""
    counts = Counter(category['name'] for category in document['categories'])
    return [name for name, count in counts.items() if count > 1]


def is_box(value: object) -> bool:
    """Whether a value is a list of four finite numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_finite, value))


def is_finite(value: object) -> bool:
    """Whether a value is a number that is finite in float32."""
    # Compared, since an int may be too large for math.isfinite.
    return isinstance(value, int | float) and -_LARGEST <= value <= _LARGEST


def _is_positive(value: object) -> bool:
    return is_finite(value) and value > 0


def is_id(value: object) -> bool:
    """Whether a value can be an id; a list has no hash to look it up by."""
    return isinstance(value, int | float | str)


def is_learned(annotation: dict) -> bool:
    """Whether a training learns a class from it: no crowd, nor marked ``ignore``."""
    return not (annotation.get('iscrowd') or annotation.get('ignore'))


def _defect(
    annotation: dict, images: dict, categories: set, masks: bool
) -> tuple[str, str]:
    """The kind of an annotation's defect and its value; empty strings for none."""
    image_id, category_id = annotation.get('image_id'), annotation.get('category_id')
    if not is_id(image_id):
        return 'annotations without an image_id', f'image_id {image_id}'
    if image_id not in images:
        return _OF_NO_IMAGE, f'image_id {image_id}'
    image = images[image_id]
    if not is_id(category_id) or category_id not in categories:
        return 'annotations of an unknown category', f'category_id {category_id}'
    box = annotation.get('bbox')
    shown = f'bbox {box}'
    if not is_box(box):
        return 'boxes without four finite numbers', shown
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return _NO_AREA, shown
    area = annotation.get('area')
    if area is not None and not _is_positive(area):
        return _NO_AREA, f'area {area}'
    if x >= image['width'] or y >= image['height'] or x + width <= 0 or y + height <= 0:
        return _OUTSIDE, shown
    if masks and not annotation.get('segmentation'):
        return WITHOUT_MASK, f'segmentation {annotation.get("segmentation")}'
    return '', ''
