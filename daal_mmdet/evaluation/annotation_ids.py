"""Annotations whose ids COCO's and LVIS's matching can count with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ['count_from_one', 'ids_count']


def ids_count(annotations: Iterable[dict]) -> bool:
    """Whether matching can count with the ids: whether all are numbers above 0.

    pycocotools and lvis note the object that a detection matches by its id, in an array
    of numbers where 0 stands for none. A detection of an object of id 0 counts as a
    false positive, and an id that is text stops the evaluation.
    """
    ids = (annotation.get('id') for annotation in annotations)
    return all(isinstance(i, int | float) and i > 0 for i in ids)


def count_from_one(api: Any) -> None:
    """Number the annotations of a ``COCO`` or ``LVIS`` anew, unless their ids count."""
    annotations = api.dataset['annotations']
    if ids_count(annotations):
        return
    for number, annotation in enumerate(annotations, start=1):
        annotation['id'] = number
    api.anns = {annotation['id']: annotation for annotation in annotations}
