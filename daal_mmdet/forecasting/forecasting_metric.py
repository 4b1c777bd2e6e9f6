"""Errors of forecasts: MSE, MAE and MASE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

__all__ = ['ForecastingMetric', 'forecast_errors']


def forecast_errors(
    forecast: np.ndarray, target: np.ndarray, naive_scale: np.ndarray
) -> dict[str, float]:
    """Mean errors over windows, steps and columns.

    ::

        MSE  = mean (y - y^)^2        MAE = mean |y - y^|
        MASE = mean |y - y^| / s,     s = mean_t |y_t - y_{t-m}| on the train part

    (MASE: R. J. Hyndman, A. B. Koehler, "Another look at measures of forecast
    accuracy", International Journal of Forecasting 22(4), 2006. Below 1 a forecast of
    ``horizon`` steps is better than the naive one is over its m steps in the train
    part.)

    Args:
        forecast: y^, (N, horizon, C), in the unit of the series.
        target: y, (N, horizon, C).
        naive_scale: s, (C,), > 0.

    Returns:
        ``MSE``, ``MAE`` and ``MASE``; NaN where a forecast is NaN.

    Raises:
        ValueError: If shapes do not fit or there is no window.
    """
    forecast, target = np.asarray(forecast, np.float64), np.asarray(target, np.float64)
    naive_scale = np.asarray(naive_scale, np.float64)
    if forecast.shape != target.shape or forecast.ndim != 3:
        raise ValueError(
            'forecast: expected shape (N, horizon, C) as target '
            f'{target.shape}, got {forecast.shape}'
        )
    if naive_scale.shape != forecast.shape[2:]:
        raise ValueError(
            f'naive_scale: expected shape {forecast.shape[2:]}, got {naive_scale.shape}'
        )
    if not forecast.size:
        raise ValueError(f'forecast: expected windows, got shape {forecast.shape}')
    error = np.abs(target - forecast)
    return {
        'MSE': float(np.square(error).mean()),
        'MAE': float(error.mean()),
        'MASE': float((error / naive_scale).mean()),
    }


@METRICS.register_module()
class ForecastingMetric(BaseMetric):
    """MSE, MAE and MASE of the forecasts of a data set, in the unit of its series.

    See :func:`forecast_errors`. Mean, standard deviation and naive scale come from the
    data set's ``metainfo``, that is from its train part.

    Args:
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: First part of the metrics' names; None means 'forecast'.

    Raises:
        ValueError: While evaluating, if the data set lacks that metainfo.
    """

    default_prefix = 'forecast'

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep forecast and target of a batch.

        Args:
            data_batch: Not used; the evaluator passes it.
            data_samples: Elements as dicts with ``forecast`` and ``target``,
                (horizon, C), standardised.
        """
        mean, std = (np.asarray(self._meta(key)) for key in ('mean', 'std'))
        for sample in data_samples:
            self.results.append(
                tuple(
                    sample[key].double().cpu().numpy() * std + mean
                    for key in ('forecast', 'target')
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the errors of all forecasts.

        Args:
            results: Pairs of forecast and target, (horizon, C), of every window.
        """
        forecast, target = (np.stack(part) for part in zip(*results, strict=True))
        return forecast_errors(forecast, target, self._meta('naive_scale'))

    def _meta(self, key: str) -> object:
        if self.dataset_meta is None or key not in self.dataset_meta:
            raise ValueError(
                f'dataset_meta: ForecastingMetric needs {key!r} in the metainfo of the '
                f'data set, as SeriesWindows has it, got {self.dataset_meta}'
            )
        return self.dataset_meta[key]
