"""Forecasting: a small sequence model, its data set and its metric."""

from daal_mmdet.forecasting.forecasting_metric import ForecastingMetric, forecast_errors
from daal_mmdet.forecasting.gru_forecaster import GRUForecaster
from daal_mmdet.forecasting.series import Series, load_series
from daal_mmdet.forecasting.series_windows import SeriesWindows

__all__ = [
    'ForecastingMetric',
    'GRUForecaster',
    'Series',
    'SeriesWindows',
    'forecast_errors',
    'load_series',
]
