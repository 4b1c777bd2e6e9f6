"""Small subsets of COCO and LVIS annotation files, in the format they came in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daal_mmdet.first_few import first_few
from daal_mmdet.validation import check_number

from .annotation_file import is_learned

__all__ = [
    'ClassCounts',
    'count_classes',
    'power_law_exponent',
    'power_law_targets',
    'take_classes',
    'take_images',
    'take_long_tail',
]

# Counts are compared as logarithms; half an instance more keeps zero finite.
_HALF = 0.5
_MAX_PASSES = 30


@dataclass(frozen=True)
class ClassCounts:
    """How often each class is there.

    Attributes:
        names: Class names in the order of the document's categories.
        images: (C,) images that show each class.
        instances: (C,) boxes of each class. Neither counts boxes that no training
            learns a class from: crowds, and those marked ``ignore``.
    """

    names: tuple[str, ...]
    images: np.ndarray
    instances: np.ndarray


def count_classes(document: dict) -> ClassCounts:
    """Count the classes of a COCO or LVIS document."""
    shown = [
        (a['image_id'], a['category_id'])
        for a in document['annotations']
        if is_learned(a)
    ]
    instances = Counter(category for _, category in shown)
    images = Counter(category for _, category in set(shown))
    ids = [category['id'] for category in document['categories']]
    return ClassCounts(
        names=tuple(category['name'] for category in document['categories']),
        images=np.array([images[i] for i in ids], dtype=np.int64),
        instances=np.array([instances[i] for i in ids], dtype=np.int64),
    )


def take_images(document: dict, count: int, seed: int = 0) -> dict:
    """Keep ``count`` images drawn at random, their boxes, and all categories.

    Args:
        document: A COCO or LVIS document.
        count: Images to keep, > 0.
        seed: Seed of the draw; the order of the images stays.

    Raises:
        TypeError, ValueError: If ``count`` is no number of images that are there.
    """
    there = len(document['images'])
    check_number('images', count, low=1, high=there, integer=True)
    chosen = np.random.default_rng(seed).choice(there, size=count, replace=False)
    return _keep_images(document, {document['images'][i]['id'] for i in chosen})


def take_classes(document: dict, names: Sequence[str]) -> dict:
    """Keep some classes, their boxes, and the images that show one of them.

    LVIS's lists of an image (``neg_category_ids``, ``not_exhaustive_category_ids``)
    keep what they say about these classes, and an LVIS image of which they say that
    such a class is *not* there stays too: it is what LVIS counts false positives on.

    Args:
        document: A COCO or LVIS document.
        names: Class names; the document's order stays.

    Raises:
        ValueError: If a name is no category, or stands there twice.
    """
    known = {category['name']: category['id'] for category in document['categories']}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f'classes: {unknown} are no categories of the file; it has '
            + first_few([repr(name) for name in sorted(known)], most=12)
        )
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        raise ValueError(f'classes: expected names, each once; got {list(names)}')
    ids = {known[name] for name in names}
    annotations = [a for a in document['annotations'] if a['category_id'] in ids]
    with_box = {a['image_id'] for a in annotations}
    images = []
    for image in document['images']:
        lists = {
            key: [i for i in image[key] if i in ids]
            for key in ('neg_category_ids', 'not_exhaustive_category_ids')
            if key in image
        }
        if image['id'] in with_box or lists.get('neg_category_ids'):
            images.append({**image, **lists})
    categories = [c for c in document['categories'] if c['id'] in ids]
    parts = dict(images=images, annotations=annotations, categories=categories)
    return {**document, **parts}


def power_law_targets(
    instances: np.ndarray, exponent: float, minimum: int = 1
) -> np.ndarray:
    """The counts that a long-tailed subset should have.

    The class of rank r (1 for the most frequent) gets ``n_1 * r ** -exponent``, where
    n_1 is the count of the most frequent, but no more than there are and no fewer than
    ``minimum`` of what there is.

    Args:
        instances: (C,) counts of the whole set.
        exponent: Of the power law, >= 0.
        minimum: Smallest count asked for of a class that has as many, >= 1.

    Returns:
        (C,) float64, in the order of ``instances``.
    """
    check_number('long_tail', exponent, low=0)
    check_number('minimum', minimum, low=1, integer=True)
    order = np.argsort(-instances, kind='stable')
    ranks = np.empty(len(instances))
    ranks[order] = np.arange(1, len(instances) + 1)
    curve = instances.max(initial=0) * ranks**-exponent
    return np.minimum(instances, np.maximum(curve, minimum)).astype(np.float64)


def power_law_exponent(instances: np.ndarray) -> float:
    """Exponent of the power law that fits counts over their rank; nan for one class.

    A least-squares line through log count over log rank, of the classes that are
    there.
    """
    counts = np.sort(instances[instances > 0])[::-1].astype(np.float64)
    if len(counts) < 2:
        return float('nan')
    ranks = np.log(np.arange(1, len(counts) + 1))
    slope, _ = np.polyfit(ranks, np.log(counts), 1)
    return float(-slope)


def take_long_tail(
    document: dict, exponent: float, minimum: int = 1, seed: int = 0
) -> dict:
    """Keep images so that the class counts follow a power law.

    Whole images are kept or left out, as in COCO-LT: leaving out single boxes would
    leave their objects in the picture and teach that they are background. Classes
    share images, so the counts come near their targets and rarely meet them. From all
    images on, each in turn (in a random order) changes sides if that lowers::

        sum_c ( log(n_c + 1/2) - log(t_c + 1/2) )^2

    until a round changes nothing, 30 rounds at most.

    Args:
        document: A COCO or LVIS document.
        exponent: Of the power law over the rank of a class, >= 0.
        minimum: Instances to aim for of each class at least, >= 1.
        seed: Seed of the order.

    Returns:
        The subset, with all categories. A class that has instances keeps some.

    Raises:
        TypeError, ValueError: If an argument is out of its range, or the document has
            no boxes; the message names it.
    """
    if not document['annotations']:
        raise ValueError('long_tail: the file holds no boxes to follow a power law')
    index = {category['id']: i for i, category in enumerate(document['categories'])}
    of_image: dict[int, Counter[int]] = defaultdict(Counter)
    for annotation in document['annotations']:
        if is_learned(annotation):
            of_image[annotation['image_id']][index[annotation['category_id']]] += 1
    counts = count_classes(document).instances
    targets = np.log(power_law_targets(counts, exponent, minimum) + _HALF)

    ids = [image['id'] for image in document['images'] if of_image[image['id']]]
    shown = {i: np.array(list(of_image[i])) for i in ids}
    numbers = {i: np.array(list(of_image[i].values())) for i in ids}
    kept, now = set(ids), counts.copy()
    rng = np.random.default_rng(seed)
    for _ in range(_MAX_PASSES):
        changed = 0
        # Of places, as an array would change ids that are strings or large numbers.
        for i in (ids[place] for place in rng.permutation(len(ids))):
            classes = shown[i]
            sign = -1 if i in kept else 1
            before, after = now[classes], now[classes] + sign * numbers[i]
            if (after == 0).any():
                continue
            errors = (np.log(c + _HALF) - targets[classes] for c in (before, after))
            old, new = ((error**2).sum() for error in errors)
            if new < old:
                now[classes] = after
                kept.symmetric_difference_update([i])
                changed += 1
        if not changed:
            break
    return _keep_images(document, kept)


def _keep_images(document: dict, ids: set[int]) -> dict:
    images = [image for image in document['images'] if image['id'] in ids]
    annotations = [a for a in document['annotations'] if a['image_id'] in ids]
    return {**document, 'images': images, 'annotations': annotations}
