"""COCO's API with no detections at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmdet.datasets.api_wrappers import COCO

__all__ = ['take_no_detections']


@contextmanager
def take_no_detections() -> Iterator[None]:
    """Let COCO's API take an empty list of detections as what it is.

    It reads the kind of the results off the first one, and ``CocoMetric`` gives up
    where that fails. Evaluated like any other, no detections give an AP of 0.
    """
    load_results = COCO.loadRes

    def load_any(self: COCO, found: object) -> COCO:
        if not (isinstance(found, list) and not found):
            return load_results(self, found)
        nothing = COCO()
        nothing.dataset = {
            'images': self.dataset['images'],
            'categories': self.dataset['categories'],
            'annotations': [],
        }
        nothing.createIndex()
        return nothing

    COCO.loadRes = load_any
    try:
        yield
    finally:
        COCO.loadRes = load_results
