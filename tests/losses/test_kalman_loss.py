import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS

from daal_mmdet.losses.kalman_loss import KalmanLoss, kalman_loss
from tests import oracles

RANDOM_WALK = dict(state_dim=1, F=[[1.0]], H=[[1.0]], Q=[[0.1]], R=[[0.2]])


def random_spd(rng, n):
    A = rng.normal(size=(n, n))
    return A @ A.T + 0.2 * np.eye(n)


def random_system(rng, n, m):
    return dict(
        F=rng.normal(size=(n, n)) / n,
        H=rng.normal(size=(m, n)),
        Q=random_spd(rng, n),
        R=random_spd(rng, m),
    )


def as_tensors(system):
    return {name: torch.from_numpy(value) for name, value in system.items()}


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 3),
    m=st.integers(1, 3),
    p=st.integers(0, 2),
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    masked=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_value_gradient_and_covariance_match_filterpy(
    n, m, p, batch, steps, masked, seed
):
    rng = np.random.default_rng(seed)
    system = random_system(rng, n, m)
    pred = rng.normal(size=(batch, steps, n))
    true = rng.normal(size=(batch, steps, m))
    mask = rng.random((batch, steps)) < 0.6 if masked else None
    B = rng.normal(size=(n, p)) if p else None
    control = rng.normal(size=(batch, steps, p)) if p else None

    def oracle(pred):
        return oracles.kalman_loss(
            pred, true, np.eye(n), **system, B=B, control=control, mask=mask
        )

    count = max((batch * steps if mask is None else mask.sum()) * m, 1)
    want, covariances = oracle(pred)

    ours = torch.from_numpy(pred).requires_grad_()
    loss = KalmanLoss(n, **as_tensors(system), B=None if B is None else B.tolist())
    loss.double()
    if B is not None:
        loss.B.copy_(torch.from_numpy(B))
    value = loss(
        ours,
        torch.from_numpy(true),
        None if control is None else torch.from_numpy(control),
        None if mask is None else torch.from_numpy(mask),
    )
    value.backward()
    np.testing.assert_allclose(value.item(), want.sum() / count, rtol=1e-9, atol=1e-12)
    slope = oracles.numeric_gradient(lambda x: oracle(x)[0].sum() / count, pred)
    np.testing.assert_allclose(ours.grad, slope, rtol=1e-5, atol=1e-8)
    used = np.ones(batch, bool) if mask is None else mask.any(1)
    P = covariances[used].mean(0) if used.any() else np.eye(n)
    np.testing.assert_allclose(loss.P, P, rtol=1e-9, atol=1e-12)


def test_first_call_is_the_printed_snippet_where_that_can_run():
    rng = np.random.default_rng(0)
    n = 3
    F, Q, R = rng.normal(size=(n, n)), random_spd(rng, n), random_spd(rng, n)
    pred, true = rng.normal(size=n), rng.normal(size=n)
    # The snippet in its own order and words, with H = I and no control.
    H, P, I = np.eye(n), np.eye(n), np.eye(n)  # noqa: E741
    x_pred = F @ pred
    P_pred = F @ P @ F.T + Q
    K = P_pred @ H.T @ np.linalg.inv(H @ P_pred @ H.T + R)
    x_est = x_pred + K @ (true - H @ x_pred)
    want = np.abs(x_est - true).mean() * np.diag(K).mean()

    system = as_tensors(dict(F=F, H=H, Q=Q, R=R))
    loss = KalmanLoss(n, **system)
    value = loss(torch.from_numpy(pred), torch.from_numpy(true))
    np.testing.assert_allclose(value.item(), want, rtol=1e-12)
    np.testing.assert_allclose(loss.P, (I - K @ H) @ P_pred, rtol=1e-10)


@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_gradcheck(reduction):
    rng = np.random.default_rng(1)
    system = as_tensors(random_system(rng, 2, 2))
    P = torch.eye(2, dtype=torch.float64)
    B = torch.from_numpy(rng.normal(size=(2, 1)))
    pred, true = (torch.from_numpy(rng.normal(size=(2, 4, 2))) for _ in range(2))
    control = torch.from_numpy(rng.normal(size=(2, 4, 1)))
    mask = torch.tensor([[True] * 4, [True, True, False, False]])

    def value(pred, control):
        return kalman_loss(
            pred,
            true,
            P,
            **system,
            B=B,
            control=control,
            mask=mask,
            reduction=reduction,
        ).loss

    inputs = pred.requires_grad_(), control.requires_grad_()
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize('seed', range(4))
def test_the_gain_becomes_the_optimal_gain_of_the_system(seed):
    rng = np.random.default_rng(seed)
    n, m = 3, 2
    system = random_system(rng, n, m)
    F, H, Q, R = (system[key] for key in 'FHQR')
    prior = scipy.linalg.solve_discrete_are(F.T, H.T, Q, R)
    K = prior @ H.T @ np.linalg.inv(H @ prior @ H.T + R)

    tensors = as_tensors(system)
    loss = KalmanLoss(n, **tensors)
    for _ in range(5):
        loss(torch.zeros(2, 60, n).double(), torch.zeros(2, 60, m).double())
    np.testing.assert_allclose(loss.P, prior - K @ H @ prior, rtol=1e-8, atol=1e-10)
    zero = torch.zeros(1, 1, n).double(), torch.zeros(1, 1, m).double()
    settled = kalman_loss(*zero, loss.P, **tensors)
    np.testing.assert_allclose(settled.weight.item(), np.diag(K).mean(), rtol=1e-8)


def test_step_weights_are_those_of_the_next_call_and_leave_no_trace():
    rng = np.random.default_rng(0)
    system = as_tensors(random_system(rng, 3, 2))
    loss = KalmanLoss(3, **system, learn_noise=True, gain_space='measurement')
    with torch.no_grad():
        loss.log_q.fill_(0.7)
        loss.log_r.fill_(-0.3)
    true = torch.from_numpy(rng.normal(size=(2, 5, 2)))
    mask = torch.tensor([[True] * 5, [True, False, True, True, False]])
    factors = dict(Q=system['Q'] * np.exp(0.7), R=system['R'] * np.exp(-0.3))
    for chosen in (None, mask):
        before = loss.P.clone()
        weights = loss.step_weights(true, chosen)
        pred = torch.from_numpy(rng.normal(size=(2, 5, 3)))
        expected = kalman_loss(
            pred,
            true,
            loss.P,
            **system | factors,
            mask=chosen,
            gain_space='measurement',
        ).weight
        assert weights.shape == (1 if chosen is None else 2, 5)
        torch.testing.assert_close(weights, expected)
        assert not weights.requires_grad
        assert torch.equal(loss.P, before)
        loss(pred, true, mask=chosen)
    with pytest.raises(ValueError, match=r'true: expected shape \(2, 5, 2\), got'):
        loss.step_weights(true[..., :1])


def test_settled_scalar_loss_is_l1_with_weight_k_times_1_minus_k():
    loss = KalmanLoss(**RANDOM_WALK)
    loss(torch.zeros(1, 200, 1), torch.zeros(1, 200, 1))
    prior = 0.05 + np.sqrt(0.05**2 + 0.1 * 0.2)
    K = prior / (prior + 0.2)
    pred, true = torch.randn(4, 6, 1), torch.randn(4, 6, 1)
    want = K * (1 - K) * torch.nn.functional.l1_loss(pred, true)
    torch.testing.assert_close(loss(pred, true), want, rtol=1e-5, atol=0)


def test_padding_equals_truncation_and_may_hold_nan():
    torch.manual_seed(0)
    lengths, steps = [5, 2, 0], 5
    pred, true = torch.randn(3, steps, 1), torch.randn(3, steps, 1)
    mask = torch.arange(steps) < torch.tensor(lengths)[:, None]
    padded = [torch.where(mask[..., None], x, torch.nan) for x in (pred, true)]
    padded[0].requires_grad_()
    loss = KalmanLoss(**RANDOM_WALK, reduction='sum')
    value = loss(*padded, mask=mask)
    value.backward()

    alone = [KalmanLoss(**RANDOM_WALK, reduction='sum') for _ in range(2)]
    pieces = []
    for i, part in enumerate(alone):
        piece = pred[i : i + 1, : lengths[i]].clone().requires_grad_()
        pieces.append((part(piece, true[i : i + 1, : lengths[i]]), piece))
    torch.testing.assert_close(value, pieces[0][0] + pieces[1][0])
    torch.stack([v for v, _ in pieces]).sum().backward()
    for i, (_, piece) in enumerate(pieces):
        torch.testing.assert_close(padded[0].grad[i, : lengths[i]], piece.grad[0])
    assert (padded[0].grad[~mask] == 0).all()
    torch.testing.assert_close(loss.P, (alone[0].P + alone[1].P) / 2)


def test_a_mask_of_all_true_changes_nothing():
    pred, true = torch.randn(3, 4, 1), torch.randn(3, 4, 1)
    first, second = KalmanLoss(**RANDOM_WALK), KalmanLoss(**RANDOM_WALK)
    value = second(pred, true, mask=torch.ones(3, 4, dtype=torch.bool))
    torch.testing.assert_close(first(pred, true), value)
    torch.testing.assert_close(first.P, second.P)


@pytest.mark.parametrize('shape', [(1,), (4, 1), (4, 1, 1)])
def test_fewer_dimensions_are_one_step(shape):
    whole, flat = KalmanLoss(**RANDOM_WALK), KalmanLoss(**RANDOM_WALK)
    pred, true = torch.randn(shape), torch.randn(shape)
    want = whole(pred.view(-1, 1, 1), true.view(-1, 1, 1))
    torch.testing.assert_close(flat(pred, true), want)
    assert torch.equal(whole.P, flat.P)
    none = KalmanLoss(**RANDOM_WALK, reduction='none')(pred, true)
    assert none.shape == shape
    torch.testing.assert_close(none.mean(), want)


@pytest.mark.parametrize('shape', [(), (4,)])
def test_fewer_dimensions_take_control_and_mask(shape):
    torch.manual_seed(0)
    config = dict(RANDOM_WALK, B=[[1.0, 0.5]])
    whole, flat = KalmanLoss(**config), KalmanLoss(**config)
    inputs = [torch.randn(*shape, width) for width in (1, 1, 2)]
    for mask in (torch.ones(shape, dtype=torch.bool), torch.zeros(shape).bool()):
        steps = [x.view(-1, 1, x.shape[-1]) for x in inputs]
        want = whole(*steps, mask.view(-1, 1))
        torch.testing.assert_close(flat(*inputs, mask), want)
        assert (want > 0) == mask.all()
        assert torch.equal(whole.P, flat.P)


@pytest.mark.parametrize('shape', [(0, 1), (0, 5, 1), (3, 0, 1)])
@pytest.mark.parametrize('learn_noise', [False, True])
def test_empty_input_gives_a_zero_with_a_graph(shape, learn_noise):
    loss = KalmanLoss(**RANDOM_WALK, learn_noise=learn_noise and len(shape) == 3)
    pred = torch.zeros(shape, requires_grad=True)
    value = loss(pred, torch.zeros(shape))
    value.backward()
    assert value.item() == 0
    assert pred.grad.shape == shape
    assert torch.equal(loss.P, torch.ones(1, 1))


def test_nothing_valid_gives_a_zero_with_a_graph():
    loss = KalmanLoss(**RANDOM_WALK)
    pred = torch.randn(2, 3, 1, requires_grad=True)
    value = loss(pred, torch.randn(2, 3, 1), mask=torch.zeros(2, 3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert torch.equal(pred.grad, torch.zeros(2, 3, 1))
    assert torch.equal(loss.P, torch.ones(1, 1))


@pytest.mark.parametrize('learn_noise', [False, True])
def test_two_sensors_of_the_same_thing_may_hardly_err(learn_noise):
    """In float32 1 + 1e-8 is 1, so that S would have no inverse."""
    R = [[1e-8, 0], [0, 1e-8]]
    loss = KalmanLoss(1, F=[[1]], H=[[1], [1]], Q=[[1.0]], R=R, learn_noise=learn_noise)
    pred = torch.ones(2, 4, 1, requires_grad=True)
    for _ in range(3):
        value = loss(pred, torch.full((2, 4, 2), 3.0))
        value.backward()
        assert value.isfinite()
        assert pred.grad.isfinite().all()
        assert 0 <= loss.P < 1e-6


def test_the_noise_learns_from_a_truth_that_is_far_off():
    loss = KalmanLoss(1, F=[[1]], H=[[1]], Q=[[1e-8]], R=[[1e-8]], learn_noise=True)
    true = torch.tensor([0.0, 1e12, -1e12, 0.0])[None, :, None]
    loss(torch.zeros(1, 4, 1), true).backward()
    assert loss.log_q.grad.isfinite()
    assert loss.log_r.grad.isfinite()
    assert loss.log_q.grad < 0


def test_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    pred, true = torch.randn(4, 6, 2), torch.randn(4, 6, 1)
    config = dict(
        state_dim=2,
        F=[[1, 1], [0, 1]],
        H=[[1, 0]],
        Q=[[0.1, 0], [0, 0.1]],
        R=[[0.3]],
        B=[[0.5], [1.0]],
    )
    control = torch.randn(4, 6, 1)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = [x.to(dtype) for x in (pred, true, control)]
        exact = KalmanLoss(**config)
        want = exact(*(x.float() for x in rounded))
        loss = KalmanLoss(**config)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            value = loss(*rounded)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, want, rtol=1e-6, atol=0)
        assert torch.equal(loss.P, exact.P)


def test_the_likelihood_of_the_noise_touches_neither_truth_nor_control():
    generator = torch.Generator().manual_seed(0)
    pred, true, control = torch.randn(3, 2, 6, 1, generator=generator)
    gradients = []
    for learn_noise in (False, True):
        given = [t.clone().requires_grad_() for t in (pred, true, control)]
        loss = KalmanLoss(**RANDOM_WALK, B=[[0.7]], learn_noise=learn_noise)
        loss(*given).backward()
        gradients.append([t.grad for t in given])
    assert loss.log_q.grad != 0
    for without, with_it in zip(*gradients, strict=True):
        torch.testing.assert_close(with_it, without, rtol=0, atol=0)


@pytest.mark.parametrize('learn_noise', [False, True])
def test_a_model_in_half_precision_trains(learn_noise):
    loss = KalmanLoss(**RANDOM_WALK, learn_noise=learn_noise).half()
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    pred = torch.randn(2, 4, 1).half().requires_grad_()
    value = loss(pred, torch.randn(2, 4, 1).half(), mask=mask)
    value.backward()
    assert value.dtype == torch.float32
    assert loss.P.dtype == torch.float32
    assert loss.P != 1
    assert (pred.grad[mask] != 0).all()
    assert (loss.log_r.grad is not None) == learn_noise


def test_half_precision_does_not_narrow_the_filter():
    noise = dict(Q=[[1e-8]], R=[[1e-8]])
    loss, half = (KalmanLoss(1, [[1.0]], [[1.0]], **noise) for _ in range(2))
    half.half()
    for _ in range(4):
        sequences = torch.zeros(1, 10, 1), torch.ones(1, 10, 1)
        assert torch.equal(half(*sequences), loss(*sequences))
    assert torch.equal(half.P, loss.P)


def test_p_is_a_detached_buffer_changed_in_place():
    loss = KalmanLoss(**RANDOM_WALK)
    address = loss.P.data_ptr()
    preds = [torch.randn(2, 3, 1, requires_grad=True) for _ in range(2)]
    # The second call changes P before the first one's backward.
    values = [loss(pred, torch.zeros(2, 3, 1)) for pred in preds]
    for value in values:
        value.backward()
    assert loss.P.data_ptr() == address
    assert not loss.P.requires_grad
    assert all(bool(pred.grad.abs().sum() > 0) for pred in preds)


def test_evaluation_uses_p_but_does_not_change_it():
    loss = KalmanLoss(**RANDOM_WALK)
    loss(torch.zeros(1, 4, 1), torch.zeros(1, 4, 1))
    before = loss.P.clone()
    pred, true = torch.randn(2, 3, 1), torch.randn(2, 3, 1)
    value = loss.eval()(pred, true)
    assert torch.equal(loss.P, before)
    assert value == loss(pred, true)


def test_a_checkpoint_resumes_the_filter():
    torch.manual_seed(0)
    first = KalmanLoss(**RANDOM_WALK)
    first(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1))
    second = KalmanLoss(**RANDOM_WALK)
    second.load_state_dict(first.state_dict())
    assert set(first.state_dict()) == {'P', 'log_q', 'log_r'}
    for _ in range(2):
        pred, true = torch.randn(2, 3, 1), torch.randn(2, 3, 1)
        assert torch.equal(first(pred, true), second(pred, true))
    assert torch.equal(first.P, second.P)


def test_measurement_space_keeps_the_weight_positive_for_any_h():
    config = {**RANDOM_WALK, 'H': [[-2.0]]}
    pred, true = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    assert KalmanLoss(**config)(pred, true) < 0
    prior = 1.1
    HK = 4 * prior / (4 * prior + 0.2)
    value = KalmanLoss(**config, gain_space='measurement')(pred, true)
    np.testing.assert_allclose(value.item(), HK * (1 - HK), rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_the_weight_in_state_space_lies_there_if_h_picks_the_first_entries(n, m, seed):
    rng = np.random.default_rng(seed)
    m = min(m, n)
    system = as_tensors(random_system(rng, n, m) | dict(H=np.eye(m, n)))
    pred, true = torch.zeros(1, 4, n).double(), torch.zeros(1, 4, m).double()
    P = torch.from_numpy(random_spd(rng, n))
    weight = kalman_loss(pred, true, P, **system).weight
    assert 0 < weight.min() <= weight.max() < 1


def test_the_weight_in_state_space_is_0_for_entries_picked_in_another_order():
    eye, swap = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]
    pred, true = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    assert KalmanLoss(2, eye, swap, eye, eye)(pred, true) == 0
    value = KalmanLoss(2, eye, swap, eye, eye, gain_space='measurement')(pred, true)
    # P' = 2, R = 1.
    np.testing.assert_allclose(value.item(), 2 / 3 * 1 / 3, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_the_weight_in_measurement_space_lies_between_0_and_1(n, m, seed):
    rng = np.random.default_rng(seed)
    system = as_tensors(random_system(rng, n, m))
    pred, true = torch.zeros(1, 4, n).double(), torch.zeros(1, 4, m).double()
    P = torch.from_numpy(random_spd(rng, n))
    weight = kalman_loss(pred, true, P, **system, gain_space='measurement').weight
    assert 0 <= weight.min() <= weight.max() < 1


@pytest.mark.parametrize('masked', [False, True])
def test_noise_follows_the_likelihood_and_leaves_the_network_alone(masked):
    rng = np.random.default_rng(3)
    system = random_system(rng, 2, 1)
    B = rng.normal(size=(2, 1))
    pred, true = rng.normal(size=(3, 8, 2)), rng.normal(size=(3, 8, 1))
    control = rng.normal(size=(3, 8, 1))
    mask = rng.random((3, 8)) < 0.8 if masked else None
    inputs = [torch.from_numpy(x) for x in (true, control)]
    if masked:
        inputs[1][~torch.from_numpy(mask)] = torch.nan
    inputs.append(None if mask is None else torch.from_numpy(mask))
    B_double = torch.from_numpy(B)

    def run(learn_noise):
        loss = KalmanLoss(
            2, **as_tensors(system), B=B_double, learn_noise=learn_noise
        ).double()
        with torch.no_grad():
            loss.log_q.fill_(0.3)
            loss.log_r.fill_(-0.2)
        p = torch.from_numpy(pred).clone().requires_grad_()
        value = loss(p, *inputs)
        value.backward()
        return loss, value, p.grad

    def oracle(scales):
        noise = dict(
            Q=np.exp(scales[0]) * system['Q'], R=np.exp(scales[1]) * system['R']
        )
        drift = np.nan_to_num(inputs[1].numpy()) @ B.T
        return oracles.innovation_nll(
            true, system['F'], system['H'], **noise, mask=mask, drift=drift
        )

    _, fixed, fixed_grad = run(False)
    loss, value, grad = run(True)
    scales = np.array([0.3, -0.2])
    np.testing.assert_allclose((value - fixed).item(), oracle(scales), rtol=1e-6)
    slope = oracles.numeric_gradient(oracle, scales, 1e-5)
    got = [loss.log_q.grad.item(), loss.log_r.grad.item()]
    np.testing.assert_allclose(got, slope, rtol=1e-4, atol=1e-6)
    assert torch.equal(grad, fixed_grad)


def test_learned_scales_enter_the_gain():
    learned = KalmanLoss(**RANDOM_WALK, learn_noise=True)
    torch.nn.init.constant_(learned.log_q, np.log(3))
    torch.nn.init.constant_(learned.log_r, np.log(0.5))
    noise = dict(Q=[[0.3]], R=[[0.1]])
    fixed = KalmanLoss(**{**RANDOM_WALK, **noise}, learn_noise=True)
    pred, true = torch.randn(2, 3, 6, 1)
    torch.testing.assert_close(learned(pred, true), fixed(pred, true))
    torch.testing.assert_close(learned.P, fixed.P)
    assert learned.P != KalmanLoss(**RANDOM_WALK).P


def test_the_likelihood_is_reduced_as_the_rest():
    pred, true = torch.randn(2, 3, 6, 1)

    def nll(reduction):
        options = dict(**RANDOM_WALK, reduction=reduction)
        values = [
            KalmanLoss(**options, learn_noise=on)(pred, true) for on in (True, False)
        ]
        return values[0] - values[1]

    # The first step of each of 3 sequences of 6 does not count.
    torch.testing.assert_close(nll('sum'), 15 * nll('mean'))


def test_no_control_is_no_input():
    pred, true = torch.randn(2, 3, 4, 1)
    loss, plain = KalmanLoss(**RANDOM_WALK, B=[[2.0]]), KalmanLoss(**RANDOM_WALK)
    assert torch.equal(loss(pred, true), plain(pred, true))


def test_learned_noise_finds_the_gain_of_a_simulated_system():
    rng = np.random.default_rng(0)
    q, r = 0.5, 1.0
    level = np.cumsum(rng.normal(scale=np.sqrt(q), size=(512, 12)), axis=1)
    noisy = level + rng.normal(scale=np.sqrt(r), size=level.shape)
    series = torch.from_numpy(noisy[..., None]).float()
    loss = KalmanLoss(1, [[1.0]], [[1.0]], [[0.02]], [[3.0]], learn_noise=True)
    optimizer = torch.optim.LBFGS(loss.parameters(), line_search_fn='strong_wolfe')

    def closure():
        optimizer.zero_grad()
        # With perfect forecasts nothing but the likelihood is left.
        value = loss(series, series)
        value.backward()
        return value

    optimizer.step(closure)

    def gain(q, r):
        prior = q / 2 + np.sqrt(q * q / 4 + q * r)
        return prior / (prior + r)

    learned = gain(0.02 * loss.log_q.exp().item(), 3.0 * loss.log_r.exp().item())
    assert gain(0.02, 3.0) < 0.1
    np.testing.assert_allclose(learned, gain(q, r), atol=0.03)


def test_fixed_noise_has_nothing_to_optimise():
    assert not any(p.requires_grad for p in KalmanLoss(**RANDOM_WALK).parameters())


def test_it_builds_from_a_config():
    loss = MODELS.build(dict(type='KalmanLoss', **RANDOM_WALK, loss_weight=2.0))
    pred, true = torch.randn(2, 3, 1), torch.randn(2, 3, 1)
    torch.testing.assert_close(
        loss(pred, true), 2 * KalmanLoss(**RANDOM_WALK)(pred, true)
    )


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        (dict(state_dim=0), ValueError, r'state_dim: expected a value >= 1, got 0'),
        (dict(F=[[1, 0]]), ValueError, r'F: expected shape \(1, 1\), got \(1, 2\)'),
        (dict(F='I'), TypeError, r"F: expected a matrix as nested lists, .* got 'I'"),
        (dict(F=[[1, 0], [1]]), TypeError, r'F: expected a matrix as nested lists'),
        (dict(F=[[float('nan')]]), ValueError, r'F: expected finite values'),
        (dict(H=[[1, 0]]), ValueError, r'H: expected shape \(any, 1\), got \(1, 2\)'),
        (dict(H=[]), ValueError, r'H: expected shape \(any, 1\), got \(0,\)'),
        (dict(Q=[[-0.1]]), ValueError, r'Q: .* positive semi-definite matrix, got'),
        (dict(R=[[0.0]]), ValueError, r'R: .* symmetric positive definite matrix, got'),
        (dict(B=[[]]), ValueError, r'B: expected shape \(1, any\), got \(1, 0\)'),
        (dict(learn_noise=1), TypeError, r'learn_noise: expected True or False, got 1'),
        (dict(gain_space='x'), ValueError, r"gain_space: expected one of .*, got 'x'"),
        (
            dict(reduction='max'),
            ValueError,
            r"reduction: expected one of .*, got 'max'",
        ),
        (dict(loss_weight=-1), ValueError, r'loss_weight: expected a value >= 0'),
        (
            dict(learn_noise=True, reduction='none'),
            ValueError,
            r"reduction: expected 'mean' or 'sum' because learn_noise=True .*'none'",
        ),
    ],
)
def test_bad_options_are_named(change, error, text):
    with pytest.raises(error, match=text):
        KalmanLoss(**{**RANDOM_WALK, **change})


def test_an_asymmetric_q_is_refused():
    eye = [[1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(ValueError, match='Q: expected a symmetric'):
        KalmanLoss(2, eye, eye, [[1.0, 0.5], [0.0, 1.0]], eye)


@pytest.mark.parametrize(
    ('arguments', 'error', 'text'),
    [
        (dict(pred=(2, 3, 2)), ValueError, r'pred: expected shape \(2, 3, 1\), got'),
        (dict(pred=()), ValueError, r'pred: expected shape \(1,\), .* got \(\)'),
        (dict(true=(2, 4, 1)), ValueError, r'true: expected shape \(2, 3, 1\), got'),
        (dict(control=(2, 3, 1)), ValueError, r'control: expected None because B is'),
        (
            dict(mask=(2, 3)),
            TypeError,
            r'mask: expected a bool tensor, got torch.float',
        ),
    ],
)
def test_bad_inputs_are_named(arguments, error, text):
    shapes = {'pred': (2, 3, 1), 'true': (2, 3, 1), **arguments}
    with pytest.raises(error, match=text):
        KalmanLoss(**RANDOM_WALK)(**{k: torch.ones(s) for k, s in shapes.items()})


def test_bad_shapes_of_mask_and_control_are_named():
    loss = KalmanLoss(**RANDOM_WALK, B=[[1.0, 2.0]])
    pair = torch.zeros(2, 3, 1), torch.zeros(2, 3, 1)
    with pytest.raises(ValueError, match=r'mask: expected shape \(2, 3\), got \(2,\)'):
        loss(*pair, mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r'control: expected shape \(2, 3, 2\), got'):
        loss(*pair, control=torch.zeros(2, 3, 1))


def test_too_short_sequences_cannot_teach_the_noise():
    loss = KalmanLoss(**RANDOM_WALK, learn_noise=True)
    with pytest.raises(
        ValueError, match=r'learn_noise needs .* T > 1, got \(2, 1, 1\)'
    ):
        loss(torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))
