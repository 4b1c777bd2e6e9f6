import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.losses.class_balance import ClassBalance, class_weights
from tests import oracles

TRUE, FALSE = torch.tensor(True), torch.tensor(False)


def observe(balance, *iterations):
    for counts in iterations:
        balance.observe(torch.tensor(counts, dtype=torch.float64), TRUE)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda C: st.lists(
            st.lists(st.integers(0, 500), min_size=C, max_size=C), max_size=8
        )
    ),
    st.floats(0, 2),
    st.floats(0, 3),
    st.floats(1, 20),
)
def test_filter_and_weights_match_the_oracle(iterations, tau, kappa, max_weight):
    C = len(iterations[0]) if iterations else 3
    balance = ClassBalance(C, tau=tau, kappa=kappa, max_weight=max_weight).double()
    oracle = oracles.ClassShareFilter(C)
    observe(balance, *iterations)
    for counts in iterations:
        oracle.observe(counts)
    if not any(sum(counts) for counts in iterations):
        assert torch.equal(balance(C), torch.ones(C, dtype=torch.float64))
        return
    np.testing.assert_allclose(balance.share, oracle.x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(balance.variance, oracle.P, rtol=1e-9, atol=1e-15)
    want = oracle.weights(tau, kappa, max_weight)
    np.testing.assert_allclose(balance(C), want, rtol=1e-6)


def test_a_class_that_was_alone_gives_way_as_the_oracle_says():
    iterations = [[500, 0, 0]] * 60 + [[250, 250, 0]]
    balance, oracle = ClassBalance(3).double(), oracles.ClassShareFilter(3)
    observe(balance, *iterations)
    for counts in iterations:
        oracle.observe(counts)
    np.testing.assert_allclose(balance.share, oracle.x, rtol=1e-9)


def test_rare_classes_weigh_more_and_the_most_frequent_one_close_to_1():
    balance = ClassBalance(3, max_weight=10.0)
    observe(balance, *[[900, 90, 10]] * 50)
    weight = balance(3)
    assert weight[0] < weight[1] < weight[2]
    np.testing.assert_allclose(weight, (0.9 / np.array([0.9, 0.09, 0.01])) ** 0.5, 0.1)


def test_a_less_certain_share_never_weighs_less():
    share = torch.tensor([0.5, 0.3, 0.2])
    last = class_weights(share, torch.zeros(3), 0.5, 1.0, 1e-4, 10.0)
    for variance in (1e-4, 1e-3, 1e-2, 1.0):
        weight = class_weights(share, torch.full((3,), variance), 0.5, 1.0, 1e-4, 10.0)
        assert (weight >= last).all()
        last = weight
    assert torch.equal(last, torch.full((3,), 10.0))


def test_few_samples_move_the_estimate_little_and_none_not_at_all():
    moves = []
    for scale in (1, 10, 100):
        balance = ClassBalance(2).double()
        observe(balance, *[[500, 500]] * 5)
        before = balance.share.clone()
        observe(balance, [0, scale])
        moves.append((balance.share - before).abs().max().item())
    assert moves[0] < moves[1] < moves[2]

    state = {name: buffer.clone() for name, buffer in balance.named_buffers()}
    observe(balance, [0, 0])
    for name, buffer in balance.named_buffers():
        assert torch.equal(buffer, state[name])


@pytest.mark.parametrize(('n', 'counted'), [(4e-6, 4e-6), (1e-6, 1e-6), (1e-9, 1e-6)])
def test_the_noise_of_parts_of_a_sample_stays_finite(n, counted):
    balance = ClassBalance(2).double()
    observe(balance, [0.75 * n, 0.25 * n])
    P, R = 0.25 + balance.process_noise, 0.25 / counted
    gain = P / (P + R)
    step = (balance.share - 0.5).numpy()
    np.testing.assert_allclose(step, gain * np.array([0.25, -0.25]), rtol=1e-9)
    np.testing.assert_allclose(balance.variance, (1 - gain) * P, rtol=1e-9)


def test_invalid_iteration_leaves_the_state_alone():
    balance = ClassBalance(2)
    observe(balance, [5, 5])
    state = {name: buffer.clone() for name, buffer in balance.named_buffers()}
    balance.observe(torch.tensor([100.0, 0.0]), FALSE)
    for name, buffer in balance.named_buffers():
        assert torch.equal(buffer, state[name])


def test_one_class_has_nothing_to_be_balanced_against():
    balance = ClassBalance(1)
    observe(balance, [7], [9])
    assert balance(1).tolist() == [1.0]


def test_share_follows_a_change_of_the_data():
    balance = ClassBalance(2, process_noise=1e-4)
    observe(balance, *[[90, 10]] * 100)
    observe(balance, *[[10, 90]] * 100)
    np.testing.assert_allclose(balance.share, [0.1, 0.9], atol=0.02)


def test_buffers_never_change_identity_or_shape():
    balance = ClassBalance()
    before = {name: (id(b), b.shape) for name, b in balance.named_buffers()}
    observe(balance, [1, 2, 3])
    after = {name: (id(b), b.shape) for name, b in balance.named_buffers()}
    assert before == after


def test_state_of_another_number_of_classes_is_not_used():
    balance = ClassBalance()
    observe(balance, *[[900, 90, 10]] * 20)
    other = ClassBalance()
    other.load_state_dict(balance.state_dict())
    assert other(2).tolist() == [1.0, 1.0]
    observe(other, [300, 100])
    fresh = ClassBalance()
    observe(fresh, [300, 100])
    torch.testing.assert_close(other(2), fresh(2))


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'tau': -1}, ValueError, r'class_balance\.tau: .* >= 0, got -1'),
        ({'kappa': None}, TypeError, r'class_balance\.kappa: expected a number'),
        ({'max_weight': 0.5}, ValueError, r'class_balance\.max_weight: .* >= 1'),
        ({'floor': 0}, ValueError, r'class_balance\.floor: .* > 0 and <= 0.5, got 0'),
        (
            {'process_noise': float('nan')},
            ValueError,
            r'class_balance\.process_noise: .*, got nan',
        ),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        ClassBalance(3, **options)
