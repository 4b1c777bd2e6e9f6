"""How often the training annotations show each class."""

from __future__ import annotations

from collections import Counter

from mmengine.fileio import load

__all__ = ['count_classes']


def count_classes(
    ann_file: str, backend_args: dict | None
) -> tuple[Counter[str], dict[str, int]]:
    """Training images and training instances of each class.

    As in a training, crowds and boxes marked ``ignore`` count for none, nor do
    annotations of an unknown category or of an image that is not listed.
    """
    document = load(ann_file, backend_args=backend_args)
    names = {category['id']: category['name'] for category in document['categories']}
    images = {image['id'] for image in document['images']}
    instances = dict.fromkeys(names.values(), 0)
    seen = set()
    for annotation in document['annotations']:
        image, category = annotation.get('image_id'), annotation.get('category_id')
        if not all(isinstance(i, int | float | str) for i in (image, category)):
            continue
        name = names.get(category)
        left_out = annotation.get('iscrowd') or annotation.get('ignore')
        if name is not None and image in images and not left_out:
            instances[name] += 1
            seen.add((image, name))
    return Counter(name for _, name in seen), instances
