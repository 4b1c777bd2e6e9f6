"""Evaluation metrics."""

from daal_mmdet.evaluation.few_class_coco_metric import FewClassCocoMetric

__all__ = ['FewClassCocoMetric']
