import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS

from daal_mmdet.losses.adaptive_dynamic_loss import (
    AdaptiveDynamicLoss,
    adaptive_dynamic_loss,
    series_gains,
)
from tests import oracles


def random_series(rng, *shape):
    return np.cumsum(rng.normal(size=shape), axis=1)


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 3),
    batch=st.integers(1, 3),
    steps=st.integers(1, 6),
    masked=st.booleans(),
    controlled=st.booleans(),
    forgetting=st.sampled_from([0.0, 0.7, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_value_gradient_and_state_match_filterpy(
    channels, batch, steps, masked, controlled, forgetting, seed
):
    rng = np.random.default_rng(seed)
    true = random_series(rng, batch, steps, channels)
    pred = true + rng.normal(size=true.shape)
    Q, R = rng.uniform(0.05, 2, (2, channels))
    P = rng.uniform(0.05, 2, channels)
    mask = rng.random((batch, steps)) < 0.6 if masked else None
    B = rng.normal(size=(channels, 2)) if controlled else None
    control = rng.normal(size=(batch, steps, 2)) if controlled else None

    drift = control @ B.T if controlled else None
    gain, final_P, final_R = oracles.series_gains(
        true, P, Q, R, forgetting, mask, drift
    )
    count = max((batch * steps if mask is None else mask.sum()) * channels, 1)

    def oracle(pred):
        return oracles.adaptive_dynamic_loss(pred, true, gain, mask).sum() / count

    loss = AdaptiveDynamicLoss(
        channels,
        forgetting=forgetting,
        B=None if B is None else torch.from_numpy(B),
    ).double()
    for name, value in (('Q', Q), ('R', R), ('P', P)):
        getattr(loss, name).copy_(torch.from_numpy(value))
    ours = torch.from_numpy(pred).requires_grad_()
    value = loss(
        ours,
        torch.from_numpy(true),
        None if control is None else torch.from_numpy(control),
        None if mask is None else torch.from_numpy(mask),
    )
    value.backward()
    np.testing.assert_allclose(value.item(), oracle(pred), rtol=1e-8, atol=1e-12)
    slope = oracles.numeric_gradient(oracle, pred)
    np.testing.assert_allclose(ours.grad, slope, rtol=1e-5, atol=1e-7)
    used = np.ones(batch, bool) if mask is None else mask.any(1)
    if used.any():
        P, R = final_P[used].mean(0), final_R[used].mean(0)
    np.testing.assert_allclose(loss.P, P, rtol=1e-8)
    np.testing.assert_allclose(loss.R, R, rtol=1e-8)


@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
@pytest.mark.parametrize('shape', [(4, 7, 2), (1, 1, 1)])
def test_a_gain_of_1_is_the_mean_squared_error_exactly(reduction, shape):
    torch.manual_seed(0)
    true = torch.randn(shape)
    preds = [torch.randn(shape).requires_grad_() for _ in range(2)]
    preds[1].data.copy_(preds[0].data)
    loss = AdaptiveDynamicLoss(shape[-1], gain=1, reduction=reduction)
    value = loss(preds[0], true)
    want = torch.nn.functional.mse_loss(preds[1], true, reduction=reduction)
    # Entries are equal to the bit; sums may be taken in another order.
    exact = dict(rtol=0, atol=0) if reduction == 'none' else dict(rtol=1e-6, atol=0)
    torch.testing.assert_close(value, want, **exact)
    value.sum().backward()
    want.sum().backward()
    torch.testing.assert_close(preds[0].grad, preds[1].grad, rtol=1e-6, atol=0)


def test_a_gain_of_1_is_the_mean_squared_error_of_the_valid_steps():
    torch.manual_seed(0)
    pred, true = torch.randn(2, 3, 5, 2)
    mask = torch.rand(3, 5) < 0.6
    loss = AdaptiveDynamicLoss(2, gain=1)
    before = copy.deepcopy(loss.state_dict())
    want = torch.nn.functional.mse_loss(pred[mask], true[mask])
    torch.testing.assert_close(loss(pred, true, mask=mask), want, rtol=1e-6, atol=0)
    # The filter did not run.
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)


def test_both_terms_reach_the_forecasts():
    true = torch.zeros(1, 3, 1)
    for gain, want in ((1.0, [1, 1, 1]), (0.0, [1, 1, 0]), (0.25, [1, 1, 0.25])):
        pred = torch.ones(1, 3, 1, requires_grad=True)
        loss = adaptive_dynamic_loss(pred, true, torch.tensor(gain), reduction='sum')
        loss.backward()
        # d/dy^ of weight * y^2 at 1: a step weighs K_k + 1 - K_{k+1}.
        np.testing.assert_allclose(pred.grad.flatten() / 2, want)


def test_the_gain_is_a_constant():
    pred, true, gain = torch.rand(3, 1, 3, 1)
    adaptive_dynamic_loss(
        pred.requires_grad_(), true, gain.requires_grad_(), reduction='sum'
    ).backward()
    assert gain.grad is None


def test_an_outlier_hands_its_weight_to_the_step_before():
    true = torch.zeros(1, 12, 1)
    true[0, 6] = 8.0
    loss = AdaptiveDynamicLoss(forgetting=0.5)
    gain = loss.gains(true).gain.flatten()
    assert gain[6] < 0.1 < 0.7 < gain[5]
    pred = true.clone().requires_grad_()
    # Errors of 1 everywhere: the slope at each step is twice its weight.
    loss(pred, true + 1).backward()
    weight = pred.grad.flatten() / pred.grad.sum() * 12
    assert weight[6] < 1
    assert weight[5] > 1.5


def test_perfect_forecasts_cost_nothing():
    true = torch.from_numpy(random_series(np.random.default_rng(0), 2, 9, 1))
    control = torch.randn(2, 9, 1)
    assert AdaptiveDynamicLoss(B=[[1.0]])(true, true, control) == 0


def test_a_fixed_filter_settles_at_the_steady_state_gain():
    q, r = 0.3, 0.5
    loss = AdaptiveDynamicLoss(process_noise=q, measurement_noise=r, forgetting=1)
    gain = loss.gains(torch.randn(1, 100, 1)).gain[0, -1, 0]
    prior = q / 2 + np.sqrt(q * q / 4 + q * r)
    np.testing.assert_allclose(gain, prior / (prior + r), rtol=1e-5)


def test_adapted_r_follows_the_noise_of_the_series():
    rng = np.random.default_rng(0)
    level = np.cumsum(rng.normal(scale=0.3, size=(200, 300, 1)), axis=1)
    for noise in (0.5, 2.0):
        series = torch.from_numpy(level + rng.normal(scale=noise, size=level.shape))
        R = series_gains(
            series, *torch.tensor([1.0, 0.09, 1.0]).double()[:, None], forgetting=0.95
        ).R
        np.testing.assert_allclose(R.mean(), noise**2, rtol=0.1)


def test_gradcheck():
    rng = np.random.default_rng(1)
    pred, true = (torch.from_numpy(rng.normal(size=(2, 5, 2))) for _ in range(2))
    gain = torch.from_numpy(rng.uniform(size=(2, 5, 2)))
    mask = torch.tensor([[True] * 5, [False, True, False, True, False]])
    for reduction in ('mean', 'sum', 'none'):
        assert torch.autograd.gradcheck(
            lambda pred, reduction=reduction: adaptive_dynamic_loss(
                pred, true, gain, mask, reduction
            ),
            pred.clone().requires_grad_(),
        )


def test_padding_equals_truncation_and_may_hold_nan():
    torch.manual_seed(0)
    mask = torch.tensor(
        [[True, True, True, False, False], [False, True, True] * 1 + [False, True]]
    )
    pred, true = torch.randn(2, 5, 1), torch.randn(2, 5, 1)
    padded = [torch.where(mask[..., None], x, torch.nan) for x in (pred, true)]
    padded[0].requires_grad_()
    loss = AdaptiveDynamicLoss(reduction='sum')
    value = loss(*padded, mask=mask)
    value.backward()

    total, P, R = 0, 0, 0
    for i in range(2):
        alone = AdaptiveDynamicLoss(reduction='sum')
        piece = pred[i : i + 1, mask[i]].clone().requires_grad_()
        part = alone(piece, true[i : i + 1, mask[i]])
        part.backward()
        torch.testing.assert_close(padded[0].grad[i, mask[i]], piece.grad[0])
        total, P, R = total + part, P + alone.P / 2, R + alone.R / 2
    torch.testing.assert_close(value, total)
    torch.testing.assert_close(loss.P, P)
    torch.testing.assert_close(loss.R, R)
    assert (padded[0].grad[~mask] == 0).all()


@pytest.mark.parametrize('shape', [(0, 5, 1), (3, 0, 1), (0, 0, 1)])
@pytest.mark.parametrize('options', [{}, dict(learn_noise=True, forgetting=1)])
def test_empty_input_gives_a_zero_with_a_graph(shape, options):
    loss = AdaptiveDynamicLoss(**options)
    pred = torch.zeros(shape, requires_grad=True)
    value = loss(pred, torch.zeros(shape))
    value.backward()
    assert value.item() == 0
    assert pred.grad.shape == shape
    torch.testing.assert_close(loss.state_dict(), AdaptiveDynamicLoss().state_dict())


def test_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    pred, true, control = torch.randn(3, 4, 6, 1).half()
    exact, loss = AdaptiveDynamicLoss(B=[[0.5]]), AdaptiveDynamicLoss(B=[[0.5]])
    want = exact(pred.float(), true.float(), control.float())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(pred, true, control)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(loss.R, exact.R)


@pytest.mark.parametrize(
    'options', [{}, dict(learn_noise=True, forgetting=1)], ids=['adapted', 'learned']
)
def test_a_model_in_half_precision_trains(options):
    torch.manual_seed(0)
    loss = AdaptiveDynamicLoss(B=[[0.5]], **options).half()
    mask = torch.tensor([[True, True, False, True], [False, True, True, False]])
    pred = torch.randn(2, 4, 1).half().requires_grad_()
    true, control = torch.randn(2, 2, 4, 1).half()
    # Padding may hold NaN in the control too.
    control[~mask] = torch.nan
    value = loss(pred, true, control, mask)
    value.backward()
    assert value.dtype == torch.float32
    # What the filter knows is not narrowed.
    assert loss.P.dtype == torch.float32
    assert torch.isfinite(loss.P).all()
    assert (pred.grad[mask] != 0).all()
    if 'learn_noise' in options:
        assert torch.isfinite(loss.log_r.grad)
        assert loss.log_r.grad != 0


def test_state_is_kept_in_place_and_in_training_only():
    loss = AdaptiveDynamicLoss()
    addresses = loss.P.data_ptr(), loss.R.data_ptr()
    preds = [torch.randn(2, 6, 1, requires_grad=True) for _ in range(2)]
    values = [loss(pred, torch.randn(2, 6, 1)) for pred in preds]
    for value in values:
        value.backward()
    assert (loss.P.data_ptr(), loss.R.data_ptr()) == addresses
    assert not loss.P.requires_grad
    assert not loss.R.requires_grad
    assert loss.R != 0.1
    before = copy.deepcopy(loss.state_dict())
    loss.eval()(preds[0], torch.randn(2, 6, 1))
    loss.train().gains(torch.randn(2, 6, 1))
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)


def test_non_finite_truth_does_not_reach_the_state():
    true = torch.randn(3, 6, 1)
    want, loss = AdaptiveDynamicLoss(), AdaptiveDynamicLoss()
    want(true[:2], true[:2])
    true[2, 3] = torch.inf
    loss(true.clone(), true)
    torch.testing.assert_close(loss.R, want.R)
    torch.testing.assert_close(loss.P, want.P)


def test_a_checkpoint_resumes_the_filter():
    torch.manual_seed(0)
    first, second = AdaptiveDynamicLoss(), AdaptiveDynamicLoss()
    first(torch.randn(2, 6, 1), torch.randn(2, 6, 1))
    assert set(first.state_dict()) == {'P', 'R', 'log_q', 'log_r'}
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        pred, true = torch.randn(2, 6, 1), torch.randn(2, 6, 1)
        assert torch.equal(first(pred, true), second(pred, true))
    assert torch.equal(first.R, second.R)


def test_noise_follows_the_likelihood_and_leaves_the_network_alone():
    rng = np.random.default_rng(2)
    true = random_series(rng, 2, 7, 2)
    pred = torch.from_numpy(rng.normal(size=true.shape))
    mask = rng.random((2, 7)) < 0.8
    control = torch.from_numpy(rng.normal(size=(2, 7, 1)))
    noise = dict(process_noise=[0.2, 0.5], measurement_noise=[1.0, 0.3])
    options = dict(channels=2, forgetting=1, B=[[0.5], [2.0]], **noise)
    B = np.array(options['B'])
    scales = np.array([0.4, -0.3])
    results = []
    for learn_noise in (False, True):
        loss = AdaptiveDynamicLoss(**options, learn_noise=learn_noise).double()
        with torch.no_grad():
            loss.log_q.fill_(scales[0])
            loss.log_r.fill_(scales[1])
        p = pred.clone().requires_grad_()
        value = loss(p, torch.from_numpy(true), control, torch.from_numpy(mask))
        value.backward()
        results.append((value.item(), p.grad))
    assert torch.equal(results[0][1], results[1][1])

    def oracle(scales):
        drift = control.numpy() @ B.T
        each = []
        for c in range(2):
            q = np.exp(scales[0]) * noise['process_noise'][c]
            r = np.exp(scales[1]) * noise['measurement_noise'][c]
            one = np.eye(1)
            part = slice(c, c + 1)
            each.append(
                oracles.innovation_nll(
                    true[..., part], one, one, q * one, r * one, mask, drift[..., part]
                )
            )
        return np.mean(each)

    # The constants pass through float32.
    np.testing.assert_allclose(results[1][0] - results[0][0], oracle(scales), rtol=1e-6)
    slope = oracles.numeric_gradient(oracle, scales, 1e-5)
    got = [loss.log_q.grad.item(), loss.log_r.grad.item()]
    np.testing.assert_allclose(got, slope, rtol=1e-4)


def test_learned_scales_enter_the_gain():
    learned = AdaptiveDynamicLoss(learn_noise=True, forgetting=1)
    torch.nn.init.constant_(learned.log_q, np.log(3))
    torch.nn.init.constant_(learned.log_r, np.log(0.5))
    fixed = AdaptiveDynamicLoss(
        process_noise=0.3, measurement_noise=0.05, learn_noise=True, forgetting=1
    )
    fixed.P.copy_(learned.P)
    pred, true = torch.randn(2, 3, 6, 1)
    torch.testing.assert_close(learned.gains(true).gain, fixed.gains(true).gain)
    torch.testing.assert_close(learned(pred, true), fixed(pred, true))
    torch.testing.assert_close(learned.P, fixed.P)


def test_the_likelihood_is_reduced_as_the_rest():
    pred, true = torch.randn(2, 3, 6, 2)

    def nll(reduction):
        values = [
            AdaptiveDynamicLoss(2, forgetting=1, reduction=reduction, learn_noise=on)(
                pred, true
            )
            for on in (True, False)
        ]
        return values[0] - values[1]

    # The first step of each of 3 sequences of 6 does not count; two channels.
    torch.testing.assert_close(nll('sum'), 30 * nll('mean'))


def test_no_control_is_no_input():
    pred, true = torch.randn(2, 3, 4, 1)
    loss, plain = AdaptiveDynamicLoss(B=[[2.0]]), AdaptiveDynamicLoss()
    assert torch.equal(loss(pred, true), plain(pred, true))


def test_it_builds_from_a_config():
    config = dict(type='AdaptiveDynamicLoss', loss_weight=2.0)
    pred, true = torch.randn(2, 3, 1), torch.randn(2, 3, 1)
    torch.testing.assert_close(
        MODELS.build(config)(pred, true), 2 * AdaptiveDynamicLoss()(pred, true)
    )


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(channels=0), ValueError, 'channels: expected a value >= 1, got 0'),
        (
            dict(process_noise=0),
            ValueError,
            'process_noise: expected a value > 0.*got 0',
        ),
        (
            dict(measurement_noise=[1, 1]),
            ValueError,
            r'measurement_noise: expected a number or 1 of them, got \[1, 1\]',
        ),
        (dict(measurement_noise='a'), TypeError, "measurement_noise: .*, got 'a'"),
        (dict(forgetting=1.5), ValueError, 'forgetting: expected a value .*<= 1'),
        (dict(gain=2), ValueError, 'gain: expected a value >= 0 and <= 1, got 2'),
        (dict(reduction='max'), ValueError, "reduction: expected one of .*, got 'max'"),
        (dict(B=[[1], [2]]), ValueError, r'B: expected shape \(1, any\), got \(2, 1\)'),
        (
            dict(learn_noise=True),
            ValueError,
            r'forgetting: learn_noise=True allows one of \(1,\), got 0.9',
        ),
        (
            dict(learn_noise=True, forgetting=1, gain=1),
            ValueError,
            r'gain: learn_noise=True allows one of \(None,\), got 1',
        ),
        (
            dict(learn_noise=True, forgetting=1, reduction='none'),
            ValueError,
            "reduction: learn_noise=True allows one of .*'mean', 'sum'.*, got 'none'",
        ),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        AdaptiveDynamicLoss(**options)


@pytest.mark.parametrize(
    ('arguments', 'error', 'text'),
    [
        (
            dict(pred=(2, 3)),
            ValueError,
            r'pred: expected shape \(B, T, 1\), got \(2, 3\)',
        ),
        (dict(true=(2, 3, 2)), ValueError, r'true: expected shape \(2, 3, 1\), got'),
        (
            dict(control=(2, 3, 1)),
            ValueError,
            'control: expected None because B is None',
        ),
        (
            dict(mask=(2, 3)),
            TypeError,
            'mask: expected a bool tensor, got torch.float32',
        ),
    ],
)
@pytest.mark.parametrize('gain', [None, 1.0])
def test_bad_inputs_are_named(arguments, error, text, gain):
    shapes = {'pred': (2, 3, 1), 'true': (2, 3, 1), **arguments}
    with pytest.raises(error, match=text):
        AdaptiveDynamicLoss(gain=gain)(**{k: torch.ones(s) for k, s in shapes.items()})


def test_one_step_cannot_teach_the_noise():
    loss = AdaptiveDynamicLoss(learn_noise=True, forgetting=1)
    with pytest.raises(
        ValueError, match=r'learn_noise needs .* T > 1, got \(2, 1, 1\)'
    ):
        loss(torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))


def train(ranks):
    """State after batches of different sizes, all of ``ranks`` at once."""
    loss = AdaptiveDynamicLoss(2)
    for k in range(3):
        parts = []
        for rank in ranks:
            generator = torch.Generator().manual_seed(10 * k + rank)
            parts.append(torch.randn(3 + rank, 5, 2, generator=generator))
        true = torch.cat(parts)
        loss(torch.zeros_like(true), true)
    return loss.state_dict()


def worker(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    torch.save(train([rank]), folder / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason='torch has no distributed')
def test_two_processes_keep_the_state_of_one(tmp_path):
    # Forked, so that the processes need not import everything again.
    mp.start_processes(worker, (tmp_path,), nprocs=2, start_method='fork')
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    for name, want in train([0, 1]).items():
        torch.testing.assert_close(first[name], want)
        assert torch.equal(first[name], second[name])
