"""Data sets and what makes or finds them."""

from .load_image_or_skip import LoadImageOrSkip
from .long_tail_scenes import CLASSES, LongTailScenes, make_long_tail, zipf_counts

__all__ = [
    'CLASSES',
    'LoadImageOrSkip',
    'LongTailScenes',
    'make_long_tail',
    'zipf_counts',
]
