"""Errors of counts: MAE and RMSE."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

__all__ = ['CountingMetric', 'count_errors']


def count_errors(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Errors of the counts of N images.

    ::

        MAE = mean |c^ - c|      RMSE = sqrt(mean (c^ - c)^2)      bias = mean (c^ - c)

    The crowd-counting literature calls the second one MSE.

    Args:
        predicted: c^, (N,).
        truth: c, (N,).

    Returns:
        ``MAE``, ``RMSE`` and ``bias``, in heads; NaN where a count is NaN.

    Raises:
        ValueError: If shapes differ or there is no image.
    """
    predicted, truth = np.asarray(predicted, float), np.asarray(truth, float)
    if predicted.shape != truth.shape or predicted.ndim != 1:
        raise ValueError(
            f'predicted: expected shape (N,) as truth {truth.shape}, got '
            f'{predicted.shape}'
        )
    if not predicted.size:
        raise ValueError('predicted: expected images, got none')
    error = predicted - truth
    return {
        'MAE': float(np.abs(error).mean()),
        'RMSE': float(np.sqrt(np.square(error).mean())),
        'bias': float(error.mean()),
    }


@METRICS.register_module()
class CountingMetric(BaseMetric):
    """MAE, RMSE and bias of the counts, see :func:`count_errors`.

    The truth is the number of points, not the sum of a map.

    Args:
        table_file: CSV file for a line an image: name, truth, prediction, error; None
            writes none.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: First part of the metrics' names; None means 'count'.
    """

    default_prefix = 'count'

    def __init__(
        self,
        table_file: str | Path | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.table_file = None if table_file is None else Path(table_file)

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep the counts of a batch.

        Args:
            data_batch: Not used; the evaluator passes it.
            data_samples: Samples as dicts with ``img_id``, ``gt_count`` and
                ``pred_count``.
        """
        for sample in data_samples:
            self.results.append(
                (
                    sample['img_id'],
                    float(sample['gt_count']),
                    float(sample['pred_count']),
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the errors, and write the table.

        Args:
            results: Name, truth and prediction of every image.
        """
        names, truth, predicted = zip(*results, strict=True)
        if self.table_file is not None:
            self.table_file.parent.mkdir(parents=True, exist_ok=True)
            with self.table_file.open('w', newline='', encoding='utf-8') as file:
                writer = csv.writer(file)
                writer.writerow(['image', 'truth', 'predicted', 'error'])
                for name, true, found in zip(names, truth, predicted, strict=True):
                    writer.writerow(
                        [name, f'{true:g}', f'{found:.2f}', f'{found - true:+.2f}']
                    )
        return count_errors(np.array(predicted), np.array(truth))
