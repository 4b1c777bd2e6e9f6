"""How often the training annotations show each class."""

from __future__ import annotations

from collections import Counter

from mmengine.fileio import load

from daal_mmdet.datasets.annotation_file import is_id, is_learned

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
        if is_id(category.get('id')) and isinstance(category.get('name'), str)
    }
    images = {i for image in document['images'] if is_id(i := image.get('id'))}
    instances = dict.fromkeys(names.values(), 0)
    seen = set()
    for annotation in document['annotations']:
        image, category = annotation.get('image_id'), annotation.get('category_id')
        if not (is_id(image) and is_id(category)):
            continue
        name = names.get(category)
        if name is not None and image in images and is_learned(annotation):
            instances[name] += 1
            seen.add((image, name))
    return Counter(name for _, name in seen), instances
