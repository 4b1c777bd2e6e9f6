"""Random sequences and density maps: finite in, finite out, and filters that stay so.

FUZZ=10000 python -m pytest tests/losses/test_fuzz*.py    runs the long form.
"""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from daal_mmdet.losses import AdaptiveDynamicLoss, CountingLoss, KalmanLoss
from tests.fuzzing import (
    AUTOCAST,
    ITERATIONS,
    as_a_network_gives_it,
    assert_finite_state,
    autocast,
    fuzz,
)

# The largest is no number of a series; a network may give it before it learns.
SCALES = (0.0, 1e-6, 1.0, 1e3, 6e4, 1e9)
MASKS = (None, 'all', 'none', 'random', 'prefix', 'nan')

sequences = st.fixed_dictionaries(
    {
        'batch': st.integers(0, 4),
        'steps': st.integers(0, 12),
        'scale': st.sampled_from(SCALES),
        'true_scale': st.sampled_from(SCALES),
        'constant': st.booleans(),
        'mask': st.sampled_from(MASKS),
        'control': st.booleans(),
        'reduction': st.sampled_from(('mean', 'sum', 'none')),
        'learn_noise': st.booleans(),
        'autocast': st.sampled_from(AUTOCAST),
        'seed': st.integers(0, 2**32 - 1),
    }
)


def sequence_batch(case, widths):
    """Forecasts, a truth, a control of width 2 or None, and a mask or None."""
    rng = np.random.default_rng(case['seed'])
    B, T = case['batch'], case['steps']
    scales = case['scale'], case['true_scale']
    if case['autocast'] == torch.float16:
        # The slope of a square of 6e4 does not fit, and 1e9 itself neither.
        scales = tuple(min(scale, 1e3) for scale in scales)
    pred, true = (
        torch.tensor(scale * rng.normal(size=(B, T, width))).float()
        for scale, width in zip(scales, widths, strict=True)
    )
    if case['constant']:
        true = true[:, :1].expand_as(true).clone()
    control = None
    if case['control']:
        control = torch.tensor(scales[1] * rng.normal(size=(B, T, 2))).float()
    mask = None
    if case['mask'] == 'prefix':
        mask = torch.arange(T) < torch.from_numpy(rng.integers(0, T + 1, (B, 1)))
    elif case['mask'] is not None:
        share = {'all': 1.0, 'none': 0.0}.get(case['mask'], 0.6)
        mask = torch.from_numpy(rng.random((B, T)) < share)
    if case['mask'] == 'nan':
        for tensor in (pred, true) if control is None else (pred, true, control):
            tensor[~mask] = float('nan')
    return pred.requires_grad_(), true, control, mask


def check_sequence_loss(loss, case, widths, calls):
    for call in range(calls):
        pred, true, control, mask = sequence_batch(
            {**case, 'seed': case['seed'] + call}, widths
        )
        given_pred = as_a_network_gives_it(pred, case['autocast'])
        with autocast(case['autocast']):
            value = loss(given_pred, true, control, mask)
        assert torch.isfinite(value).all(), value
        value.sum().backward()
        assert torch.isfinite(pred.grad).all()
        for name, parameter in loss.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), name
    assert_finite_state(loss)


@fuzz
@given(
    case=sequences,
    channels=st.integers(1, 3),
    noise=st.sampled_from((1e-8, 0.1, 1e6)),
    forgetting=st.sampled_from((0.0, 0.9, 1.0)),
    gain=st.sampled_from((None, None, 0.0, 0.5, 1.0)),
    calls=st.integers(1, 3),
)
def test_adaptive_dynamic_loss_is_finite(
    case, channels, noise, forgetting, gain, calls
):
    learn = case['learn_noise'] and case['reduction'] != 'none' and case['steps'] > 1
    rng = np.random.default_rng(case['seed'])
    loss = AdaptiveDynamicLoss(
        channels,
        process_noise=noise,
        measurement_noise=float(rng.choice([1e-8, 0.1, 1e6])),
        forgetting=1 if learn else forgetting,
        gain=None if learn else gain,
        learn_noise=learn,
        B=rng.normal(size=(channels, 2)),
        reduction=case['reduction'],
    )
    check_sequence_loss(loss, case, (channels, channels), calls)


def random_system(rng, n, m):
    """A stable linear system, noise of any size, sensors that may agree."""
    F = rng.normal(size=(n, n))
    F /= max(1.0, np.abs(np.linalg.eigvals(F)).max())
    H = rng.normal(size=(m, n)) * rng.choice([0.0, 1.0, 1e3], (m, 1))
    if rng.random() < 0.3:
        H[:] = H[:1]
    spread = rng.normal(size=(n, n)) * rng.choice([0.0, 1e-3, 1.0, 1e3])
    R = np.diag(rng.choice([1e-8, 1e-3, 1.0, 1e3], m))
    B = rng.normal(size=(n, 2))
    return dict(F=F, H=H, Q=spread @ spread.T, R=R, B=B)


@fuzz
@given(
    case=sequences,
    n=st.integers(1, 4),
    m=st.integers(1, 3),
    gain_space=st.sampled_from(('state', 'measurement')),
    calls=st.integers(1, 3),
)
# Found once in 10,000: a measurement shrinks the diffuse P below its own rounding.
@example(
    case={
        'batch': 1,
        'steps': 5,
        'scale': 0.0,
        'true_scale': 0.0,
        'constant': False,
        'mask': None,
        'control': False,
        'reduction': 'mean',
        'learn_noise': True,
        'autocast': None,
        'seed': 242,
    },
    n=4,
    m=3,
    gain_space='state',
    calls=1,
)
def test_kalman_loss_is_finite(case, n, m, gain_space, calls):
    system = random_system(np.random.default_rng(case['seed']), n, m)
    learn = case['learn_noise'] and case['reduction'] != 'none' and case['steps'] > n
    loss = KalmanLoss(
        n,
        **system,
        learn_noise=learn,
        gain_space=gain_space,
        reduction=case['reduction'],
    )
    check_sequence_loss(loss, case, (n, m), calls)


@pytest.mark.parametrize('kind', ['dynamic', 'kalman'])
def test_filters_of_sequences_stay_finite_over_thousands_of_iterations(kind):
    rng = np.random.default_rng(0)
    if kind == 'dynamic':
        widths = (2, 2)
        loss = AdaptiveDynamicLoss(2, B=rng.normal(size=(2, 2)))
    else:
        widths = (3, 2)
        loss = KalmanLoss(3, **random_system(rng, 3, 2))
    for k in range(ITERATIONS):
        case = {
            'batch': int(rng.integers(0, 4)),
            'steps': int(rng.integers(0, 8)),
            'scale': float(rng.choice(SCALES)),
            'true_scale': float(rng.choice(SCALES)),
            'constant': bool(rng.integers(2)),
            'mask': rng.choice(MASKS),
            'control': bool(rng.integers(2)),
            'autocast': AUTOCAST[rng.integers(3)],
            'seed': k,
        }
        check_sequence_loss(loss, case, widths, calls=1)
        if k % 50 == 49:
            # A broken truth: the filters leave it out.
            broken = torch.full((2, 3, widths[1]), float('nan'))
            loss(torch.zeros(2, 3, widths[0]), broken)
            assert_finite_state(loss, k)


maps = st.fixed_dictionaries(
    {
        'batch': st.integers(0, 3),
        'height': st.integers(1, 12),
        'width': st.integers(1, 12),
        'scale': st.sampled_from((0.0, 1e-8, 1e-3, 1.0, 1e3, 6e4, 1e9)),
        'negative': st.booleans(),
        'truth': st.sampled_from(('empty', 'points', 'same')),
        'mask': st.sampled_from((None, 'all', 'none', 'rectangle')),
        'autocast': st.sampled_from(AUTOCAST),
        'seed': st.integers(0, 2**32 - 1),
    }
)
map_options = st.fixed_dictionaries(
    {
        'task': st.sampled_from(('mse', 'mae')),
        'bnm_weight': st.sampled_from((0.0, 0.05, 1.0)),
        'bnm_adaptive': st.booleans(),
        'bnm_kind': st.sampled_from(('ratio', 'raw')),
        'bnm_method': st.sampled_from(('auto', 'svd', 'gram', 'newton_schulz', 'fast')),
        'bnm_min_norm': st.sampled_from((1e-3, 0.1, 10.0)),
        'update_cycle': st.sampled_from((None, 1, 50)),
    }
)


def map_batch(case):
    rng = np.random.default_rng(case['seed'])
    shape = case['batch'], case['height'], case['width']
    scale = case['scale']
    if case['autocast'] == torch.float16:
        scale = min(scale, 1e3)  # the slope of a larger square does not fit
    pred = scale * rng.uniform(-1 if case['negative'] else 0, 1, shape)
    pred = torch.tensor(pred, dtype=torch.float32)
    target = {
        'empty': torch.zeros(shape),
        'points': torch.tensor(rng.poisson(0.3, shape), dtype=torch.float32),
        'same': pred.clone(),
    }[case['truth']]
    mask = None
    if case['mask'] is not None:
        mask = torch.zeros(shape)
        height, width = {'all': shape[1:], 'none': (0, 0)}.get(
            case['mask'], rng.integers(1, [shape[1] + 1, shape[2] + 1])
        )
        mask[:, :height, :width] = 1
    return pred.requires_grad_(), target, mask


def check_counting_loss(loss, case):
    pred, target, mask = map_batch(case)
    given_pred = as_a_network_gives_it(pred, case['autocast'])
    with autocast(case['autocast']):
        value = loss(given_pred, target, mask)
    assert torch.isfinite(value), value
    assert value.dtype == torch.float32
    value.backward()
    assert torch.isfinite(pred.grad).all()
    assert_finite_state(loss, case['seed'])


@fuzz
@given(case=maps, options=map_options, calls=st.integers(1, 3))
def test_counting_loss_is_finite(case, options, calls):
    loss = CountingLoss(**options)
    for call in range(calls):
        check_counting_loss(loss, {**case, 'seed': case['seed'] + call})


def test_filter_of_counting_loss_stays_finite_over_thousands_of_iterations():
    rng = np.random.default_rng(0)
    loss = CountingLoss()
    for k in range(ITERATIONS):
        case = {
            'batch': int(rng.integers(0, 3)),
            'height': int(rng.integers(1, 9)),
            'width': int(rng.integers(1, 9)),
            'scale': float(rng.choice([0.0, 1e-3, 1.0, 6e4, 1e9])),
            'negative': bool(rng.integers(2)),
            'truth': str(rng.choice(['empty', 'points', 'same'])),
            'mask': rng.choice([None, 'all', 'rectangle']),
            'autocast': AUTOCAST[rng.integers(3)],
            'seed': k,
        }
        check_counting_loss(loss, case)
        if k % 50 == 49:
            loss(
                torch.full((1, 4, 4), float('nan')).requires_grad_(),
                torch.ones(1, 4, 4),
            )
            assert_finite_state(loss, k)
    assert 0 <= loss.proportion.proportion <= 1
