"""Comparing losses over variants, seeds and data sets: ``tools/benchmark.py``.

Importing it registers what only a benchmark needs.
"""

from daal_mmdet.benchmark.class_balanced_focal_loss import ClassBalancedFocalLoss
from daal_mmdet.benchmark.equalized_focal_loss import EqualizedFocalLoss
from daal_mmdet.benchmark.progress_file_hook import ProgressFileHook
from daal_mmdet.benchmark.repeatable_training_hook import RepeatableTrainingHook

__all__ = [
    'ClassBalancedFocalLoss',
    'EqualizedFocalLoss',
    'ProgressFileHook',
    'RepeatableTrainingHook',
]
