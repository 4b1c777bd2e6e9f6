import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import BaseDataElement

import daal_mmdet.losses.adaptive_dynamic_loss
import daal_mmdet.losses.kalman_loss  # noqa: F401 - registers
from daal_mmdet.forecasting.gru_forecaster import GRUForecaster

LOSSES = {
    'mse': dict(type='MSELoss'),
    'adaptive_dynamic': dict(type='AdaptiveDynamicLoss', channels=2),
    'kalman': dict(
        type='KalmanLoss',
        state_dim=2,
        F=[[1, 0], [0, 1]],
        H=[[1, 0], [0, 1]],
        Q=[[0.1, 0], [0, 0.1]],
        R=[[0.1, 0], [0, 0.1]],
    ),
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GRUForecaster(channels=2, hidden_size=5, num_layers=2, horizon=4)


def samples(*targets):
    return [BaseDataElement(target=target) for target in targets]


def test_forecasts_are_steps_from_the_last_value(model):
    inputs = torch.randn(3, 6, 2)
    states, _ = model.gru(inputs)
    want = inputs + states @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(inputs), want)


def test_the_network_has_the_size_it_is_given(model):
    gru = model.gru
    assert (gru.input_size, gru.hidden_size, gru.num_layers) == (2, 5, 2)


def test_no_forecast_sees_the_future(model):
    inputs = torch.randn(1, 6, 2)
    changed = inputs.clone()
    changed[0, 4:] += 10
    first, second = model(inputs), model(changed)
    assert torch.equal(first[0, :4], second[0, :4])
    assert not torch.equal(first[0, 4], second[0, 4])


def test_predict_feeds_its_forecasts_back(model):
    inputs = torch.randn(3, 6, 2)
    window = inputs
    for _ in range(4):
        window = torch.cat([window, model(window)[:, -1:]], 1)
    got = model(inputs, mode='predict')
    for sample, want in zip(got, window[:, 6:], strict=True):
        torch.testing.assert_close(sample.forecast, want)


def test_predict_keeps_the_elements_it_gets(model):
    given = samples(*torch.randn(2, 4, 2))
    got = model(list(torch.randn(2, 6, 2)), given, mode='predict')
    assert all(a is b for a, b in zip(got, given, strict=True))
    assert set(got[0].keys()) == {'target', 'forecast'}


@pytest.mark.parametrize('name', LOSSES)
def test_each_loss_sees_forecasts_and_targets_in_order(name):
    model = GRUForecaster(channels=2, hidden_size=5, loss=LOSSES[name])
    inputs, targets = torch.randn(3, 6, 2), torch.randn(3, 6, 2)
    want = MODELS.build(LOSSES[name])(model(inputs), targets)
    losses = model(inputs, samples(*targets), mode='loss')
    assert set(losses) == {'loss_forecast'}
    torch.testing.assert_close(losses['loss_forecast'], want)
    losses['loss_forecast'].backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for p in [*model.gru.parameters(), *model.head.parameters()]
    )


def test_learned_noise_is_optimised_and_saved_with_the_model():
    loss = dict(LOSSES['kalman'], learn_noise=True)
    model = GRUForecaster(channels=2, loss=loss)
    inputs = torch.randn(3, 6, 2)
    model(inputs, samples(*torch.randn(3, 6, 2)), mode='loss')[
        'loss_forecast'
    ].backward()
    assert model.loss_forecast.log_q.grad != 0
    assert {'loss_forecast.P', 'loss_forecast.log_q'} <= set(model.state_dict())


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (dict(mode='train'), "mode: expected one of .*, got 'train'"),
        (
            dict(inputs=torch.zeros(3, 6, 1)),
            r'expected shape \(B, T, 2\), got \(3, 6, 1\)',
        ),
        (dict(mode='loss'), "data_samples: mode 'loss' needs targets, got None"),
        (
            dict(mode='loss', data_samples=samples(*torch.zeros(3, 4, 2))),
            r'target: .* expected shape \(3, 6, 2\), got \(3, 4, 2\); build the',
        ),
    ],
)
def test_bad_inputs_are_named(model, arguments, text):
    with pytest.raises(ValueError, match=text):
        model(**{'inputs': torch.zeros(3, 6, 2), **arguments})


@pytest.mark.parametrize('key', ['channels', 'hidden_size', 'num_layers', 'horizon'])
def test_bad_options_are_named(key):
    with pytest.raises(ValueError, match=f'{key}: expected a value >= 1, got 0'):
        GRUForecaster(**{key: 0})
