import copy
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.losses.covariance_weighting import RowWeights, covariance_weights
from daal_mmdet.losses.uncertainty_aware_smooth_l1 import UncertaintyAwareSmoothL1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-60, 20), min_size=1, max_size=9))
def test_weights_follow_the_formula(log_det):
    det = np.exp(np.array(log_det))
    expected = 1 / np.sqrt(det)
    log_det = torch.tensor(log_det, dtype=torch.float64)
    printed = covariance_weights(log_det, normalize=None)
    np.testing.assert_allclose(printed, expected, rtol=1e-5)
    scaled = covariance_weights(log_det, max_weight=1e9)
    np.testing.assert_allclose(scaled, expected / expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(scaled.mean(), 1, rtol=1e-5)
    cut = covariance_weights(log_det, None, max_weight=3.0)
    np.testing.assert_allclose(cut, np.minimum(expected, 3), rtol=1e-5)


def test_by_default_no_box_weighs_more_than_ten_times_the_mean():
    # More than ten rows, or none could.
    log_det = torch.zeros(30)
    log_det[0] = -20.0
    assert covariance_weights(log_det)[0].item() == 10.0
    printed = covariance_weights(log_det, normalize=None)[0].item()
    assert printed == pytest.approx(np.exp(10), rel=1e-5)


def test_each_level_has_its_mean():
    log_det = torch.tensor([-2.0, -9.0, -1.0, -4.0, 3.0])
    level = torch.tensor([0, 2, 0, 2, 0])
    weights = covariance_weights(log_det, level=level, num_levels=4)
    for number in (0, 2):
        expected = np.exp(-0.5 * log_det[level == number].double())
        np.testing.assert_allclose(
            weights[level == number], expected / expected.mean(), rtol=1e-6
        )


@pytest.mark.parametrize('normalize', ['mean', None])
def test_no_rows_and_one_row(normalize):
    assert covariance_weights(torch.zeros(0), normalize).shape == (0,)
    one = covariance_weights(torch.tensor([-4.0]), normalize)
    torch.testing.assert_close(
        one, torch.tensor([1.0 if normalize else float(np.exp(2))])
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    weights = covariance_weights(torch.tensor([-100.0, -98.0], dtype=dtype))
    assert weights.dtype == torch.float32
    assert weights.isfinite().all()


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (
            dict(normalize='sum'),
            ValueError,
            r"normalize: .*\('mean', None\), got 'sum'",
        ),
        (dict(max_weight=0), ValueError, 'max_weight: expected a value > 0, got 0'),
        (dict(max_weight='x'), TypeError, "max_weight: expected a number, got 'x'"),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        UncertaintyAwareSmoothL1(**options)


class _Tracker:
    def next_call(self, num_rows):
        return RowWeights(None, torch.ones(num_rows))

    def measure(self, residuals):
        raise AssertionError('nothing to measure here')


def test_one_warning_names_the_missing_line():
    loss = UncertaintyAwareSmoothL1()
    boxes = torch.rand(3, 4)
    loss.eval()
    loss(boxes, boxes)
    loss.train()
    with torch.no_grad():
        loss(boxes, boxes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        loss(boxes, boxes)
        loss(boxes, boxes)
    (warning,) = caught
    line = "custom_hooks = [dict(type='KalmanCovarianceHook')]"
    assert line in str(warning.message)


def test_nothing_is_measured_without_gradients():
    loss = UncertaintyAwareSmoothL1()
    loss.tracker = _Tracker()
    with torch.no_grad():
        loss(torch.rand(3, 4), torch.rand(3, 4))
    assert 'tracker' not in loss.state_dict()
    assert list(copy.deepcopy(loss).state_dict()) == []
