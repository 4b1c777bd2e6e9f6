import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from daal_mmdet.forecasting.forecasting_metric import ForecastingMetric, forecast_errors
from daal_mmdet.forecasting.series_windows import SeriesWindows
from tests import oracles


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)),
    lag=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_errors_match_the_oracle(shape, lag, seed):
    rng = np.random.default_rng(seed)
    train = rng.normal(size=(20, shape[2]))
    forecast, target = rng.normal(size=(2, *shape))
    scale = np.abs(train[lag:] - train[:-lag]).mean(0)
    got = forecast_errors(forecast, target, scale)
    want = oracles.forecast_errors(forecast, target, train, lag)
    assert got.keys() == want.keys()
    np.testing.assert_allclose(list(got.values()), list(want.values()))


def test_the_evaluator_reports_in_the_unit_of_the_series():
    rng = np.random.default_rng(0)
    series = np.cumsum(rng.normal(size=(80, 2)), 0) * [3.0, 50.0] + [7.0, -20.0]
    dataset = SeriesWindows(
        series, split='test', context=6, horizon=3, test_mode=True, naive_lag=2
    )
    evaluator = Evaluator(ForecastingMetric())
    evaluator.dataset_meta = dataset.metainfo
    forecasts, targets = [], []
    for item in dataset:
        sample = item['data_samples']
        sample.forecast = torch.from_numpy(rng.normal(size=(3, 2))).float()
        evaluator.process([sample], item)
        forecasts.append(
            sample.forecast * torch.tensor(dataset.metainfo['std'])
            + torch.tensor(dataset.metainfo['mean'])
        )
        first = sample.first_target
        targets.append(series[first : first + 3])
    want = oracles.forecast_errors(
        np.stack(forecasts), np.stack(targets), series[:48], 2
    )
    got = evaluator.evaluate(len(dataset))
    assert len(dataset) == 14
    for name, value in want.items():
        np.testing.assert_allclose(got[f'forecast/{name}'], value, rtol=1e-5)


def test_a_naive_forecast_of_one_step_has_mase_1_on_the_train_part():
    series = np.cumsum(np.random.default_rng(0).normal(size=100))
    dataset = SeriesWindows(series, context=1, horizon=1, test_mode=True)
    metric = ForecastingMetric(prefix='naive')
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item['data_samples']
        sample.forecast = item['inputs']
        metric.process(None, [sample.to_dict()])
    np.testing.assert_allclose(metric.evaluate(59)['naive/MASE'], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ('shapes', 'text'),
    [
        (((2, 3, 1), (2, 4, 1), (1,)), r'as target \(2, 4, 1\), got \(2, 3, 1\)'),
        (((2, 3), (2, 3), (1,)), r'expected shape \(N, horizon, C\) .* got \(2, 3\)'),
        (
            ((2, 3, 1), (2, 3, 1), (2,)),
            r'naive_scale: expected shape \(1,\), got \(2,\)',
        ),
        (((0, 3, 1), (0, 3, 1), (1,)), r'expected windows, got shape \(0, 3, 1\)'),
    ],
)
def test_bad_shapes_are_named(shapes, text):
    with pytest.raises(ValueError, match=text):
        forecast_errors(*(np.ones(shape) for shape in shapes))


@pytest.mark.parametrize('meta', [None, dict(classes=('a',))])
def test_a_data_set_of_another_kind_is_named(meta):
    metric = ForecastingMetric()
    if meta is not None:
        metric.dataset_meta = meta
    sample = BaseDataElement(target=torch.zeros(2, 1), forecast=torch.zeros(2, 1))
    with pytest.raises(
        ValueError, match="dataset_meta: ForecastingMetric needs 'mean'"
    ):
        metric.process(None, [sample.to_dict()])
