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
    names = {
        category['id']: category['name']
        for category in document['categories']
        if _is_id(category.get('id')) and isinstance(category.get('name'), str)
    }
    images = {i for image in document['images'] if _is_id(i := image.get('id'))}
    instances = dict.fromkeys(names.values(), 0)
    seen = set()
    for annotation in document['annotations']:
        image, category = annotation.get('image_id'), annotation.get('category_id')
        if not (_is_id(image) and _is_id(category)):
            continue
        name = names.get(category)
        left_out = annotation.get('iscrowd') or annotation.get('ignore')
        if name is not None and image in images and not left_out:
            instances[name] += 1
            seen.add((image, name))
    return Counter(name for _, name in seen), instances


def _is_id(value: object) -> bool:
    # A list has no hash to look it up by.
    return isinstance(value, int | float | str)
