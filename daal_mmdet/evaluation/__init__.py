"""Evaluation metrics."""

from daal_mmdet.evaluation.few_class_coco_metric import FewClassCocoMetric
from daal_mmdet.evaluation.few_class_lvis_metric import FewClassLVISMetric

__all__ = ['FewClassCocoMetric', 'FewClassLVISMetric']
