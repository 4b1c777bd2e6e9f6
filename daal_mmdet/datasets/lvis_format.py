"""What LVIS adds to COCO: frequencies, and what an image says nothing about."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from daal_mmdet.validation import check_number

from .annotation_file import is_lvis
from .subset import count_classes

__all__ = ['frequency', 'to_lvis', 'with_frequencies']

# LVIS v1: rare classes are in 1 to 10 training images, common ones in 11 to 100.
_RARE, _COMMON = 10, 100
_URL = 'http://images.cocodataset.org/'


def frequency(num_images: int) -> str:
    """LVIS's letter of a class in so many training images: 'r', 'c' or 'f'."""
    if num_images <= _RARE:
        return 'r'
    return 'c' if num_images <= _COMMON else 'f'


def with_frequencies(document: dict, train: dict) -> dict:
    """Give the categories the counts and letters that the training document implies.

    Args:
        document: The document to change a copy of; a training one is its own ``train``.
        train: The training document, with the same categories.

    Raises:
        ValueError: If a category of ``document`` is not in ``train``, or has another
            name there.
    """
    counts = count_classes(train)
    known = {
        category['id']: {
            'image_count': int(images),
            'instance_count': int(instances),
            'frequency': frequency(int(images)),
        }
        for category, images, instances in zip(
            train['categories'], counts.images, counts.instances, strict=True
        )
    }
    missing = [c['name'] for c in document['categories'] if c['id'] not in known]
    if missing:
        raise ValueError(f'train: the training file has no category {missing}')
    names = {category['id']: category['name'] for category in train['categories']}
    for category in document['categories']:
        own, other = category['name'], names[category['id']]
        if own != other:
            raise ValueError(
                f'train: the training file numbers the categories differently: id '
                f'{category["id"]} is {other!r} there and {own!r} here'
            )
    categories = [{**c, **known[c['id']]} for c in document['categories']]
    return {**document, 'categories': categories}


def to_lvis(
    document: dict,
    train: dict,
    image_folder: str,
    negatives: int = 3,
    not_exhaustive: float = 0.0,
    seed: int = 0,
) -> dict:
    """Turn a COCO document into one in the format of LVIS v1.

    * Categories get ``frequency``, ``image_count`` and ``instance_count`` from the
      training document, and an empty ``synset`` and ``def``.
    * An image names ``neg_category_ids``: some of the classes that it does not show.
      COCO is annotated exhaustively, so any of them is a verified negative; LVIS names
      few, and detections of all others do not count.
    * ``not_exhaustive_category_ids`` are the classes with an ``iscrowd`` region, which
      is left out as LVIS has none. As LVIS's case of a class that is annotated in
      parts, ``not_exhaustive`` asks for more: in that share of the images that show a
      class at least twice, one of its boxes is left out and the class listed.
    * A box without a ``segmentation`` gets its own outline.

    Args:
        document: A COCO document.
        train: The COCO document of the training split, which may be the same.
        image_folder: Where images lie below the data root, such as 'train2017'; LVIS
            v1 says so in ``coco_url``.
        negatives: Negative classes to name in an image, >= 0.
        not_exhaustive: Share as above, in [0, 1].
        seed: Seed of what is drawn.

    Raises:
        TypeError, ValueError: If an argument is out of its range, the document is in
            LVIS's format already, or ``train`` lacks one of its categories.
    """
    check_number('negatives', negatives, low=0, integer=True)
    check_number('not_exhaustive', not_exhaustive, low=0, high=1)
    if is_lvis(document):
        raise ValueError('the file is in the format of LVIS already')
    rng = np.random.default_rng(seed)
    crowded = defaultdict(set)
    of_image = defaultdict(list)
    for annotation in document['annotations']:
        if annotation.get('iscrowd', 0):
            crowded[annotation['image_id']].add(annotation['category_id'])
        else:
            of_image[annotation['image_id']].append(annotation)

    ids = [category['id'] for category in document['categories']]
    images, annotations = [], []
    for image in document['images']:
        boxes = of_image[image['id']]
        counts = Counter(box['category_id'] for box in boxes)
        partial = set(crowded[image['id']])
        for category, count in counts.items():
            if count > 1 and rng.random() < not_exhaustive:
                partial.add(category)
                same = [box for box in boxes if box['category_id'] == category]
                dropped = same[rng.integers(count)]
                boxes = [box for box in boxes if box is not dropped]
        absent = [i for i in ids if i not in counts and i not in partial]
        drawn = rng.permutation(absent)[:negatives]
        annotations += [_as_lvis(box) for box in boxes]
        images.append(
            {
                'id': image['id'],
                'width': image['width'],
                'height': image['height'],
                'coco_url': f'{_URL}{image_folder}/{image["file_name"]}',
                'neg_category_ids': sorted(int(i) for i in drawn),
                'not_exhaustive_category_ids': sorted(partial),
            }
        )
    categories = [
        {'id': c['id'], 'name': c['name'], 'synset': '', 'def': ''}
        for c in document['categories']
    ]
    parts = dict(images=images, annotations=annotations, categories=categories)
    return with_frequencies({'info': document.get('info', {}), **parts}, train)


def _as_lvis(box: dict) -> dict:
    x, y, width, height = box['bbox']
    right, bottom = x + width, y + height
    return {
        'id': box['id'],
        'image_id': box['image_id'],
        'category_id': box['category_id'],
        'bbox': box['bbox'],
        'area': box.get('area', width * height),
        'segmentation': box.get('segmentation')
        or [[x, y, right, y, right, bottom, x, bottom]],
    }
