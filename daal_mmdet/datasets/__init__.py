"""Data sets and what makes or finds them."""

from .long_tail_scenes import CLASSES, LongTailScenes, make_long_tail, zipf_counts

__all__ = ['CLASSES', 'LongTailScenes', 'make_long_tail', 'zipf_counts']
