import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.losses.adaptive_proportion import AdaptiveProportion
from tests import oracles

TRUE, FALSE = torch.tensor(True), torch.tensor(False)


def run(proportion, losses):
    gains, proportions = [], []
    for loss in losses:
        proportion.observe(torch.tensor(loss, dtype=torch.float64), TRUE)
        gains.append(proportion.gain.item())
        proportions.append(proportion.proportion.item())
    return np.array(gains), np.array(proportions)


def noisy_descent(n, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    return (0.3 + np.exp(-np.arange(n) / 30)) * (1 + noise * rng.normal(size=n))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30),
    st.sampled_from([None, 1, 7]),
    st.sampled_from([1e-4, 1e-2]),
    st.sampled_from([0.5, 0.95, 1.0]),
)
def test_gain_and_proportion_match_the_oracle(losses, cycle, trend_noise, forgetting):
    ours = AdaptiveProportion(
        cycle, trend_noise=trend_noise, noise_forgetting=forgetting
    ).double()
    gains, proportions = run(ours, losses)
    want_gains, want = oracles.proportion_filter(
        losses, trend_noise, forgetting, cycle=cycle
    )
    np.testing.assert_allclose(gains, want_gains, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(proportions, want, rtol=1e-5, atol=1e-7)


def test_the_noise_of_a_loss_that_stands_still_keeps_its_floor():
    losses = np.full(400, 0.7)
    gains, proportions = run(AdaptiveProportion().double(), losses)
    want_gains, want = oracles.proportion_filter(losses)
    np.testing.assert_allclose(gains, want_gains, rtol=1e-5)
    np.testing.assert_allclose(proportions, want, rtol=1e-5)


@pytest.mark.parametrize('falls', [True, False])
def test_predicted_cycles_of_a_steady_trend_match_the_oracle(falls):
    losses = noisy_descent(80, noise=0.003)
    losses = losses if falls else losses[::-1].copy()
    gains, proportions = run(AdaptiveProportion().double(), losses)
    want_gains, want = oracles.proportion_filter(losses, 1e-3, 0.95, cycle=None)
    np.testing.assert_allclose(gains, want_gains, rtol=1e-5)
    np.testing.assert_allclose(proportions, want, rtol=1e-5)
    # Cycles of more than one iteration: it is held in between.
    assert 5 < len(set(proportions)) < 60


def test_gain_lies_inside_0_and_1_and_falls_as_the_filter_settles():
    proportion = AdaptiveProportion()
    gains, proportions = run(proportion, noisy_descent(200))
    assert ((gains > 0) & (gains < 1)).all()
    assert gains[0] > 0.9
    assert gains[100:].mean() < 0.3
    assert proportions[0] < 0.1
    assert proportions[-1] > 0.7


@pytest.mark.parametrize('first', [[], [0.5, 0.4]])
def test_a_loss_whose_square_leaves_float32_is_left_out(first):
    proportion, other = AdaptiveProportion(), AdaptiveProportion()
    run(proportion, [*first, 1e20, 0.3])
    run(other, [*first, 0.3])
    for (name, got), want in zip(
        proportion.named_buffers(), other.buffers(), strict=True
    ):
        assert torch.equal(got, want), name


def test_a_noisier_loss_is_trusted_less():
    quiet, _ = run(AdaptiveProportion(), noisy_descent(300, noise=0.02))
    noisy, _ = run(AdaptiveProportion(), noisy_descent(300, noise=0.3))
    assert noisy[100:].mean() < quiet[100:].mean()


def test_rescaling_the_loss_changes_nothing():
    losses = noisy_descent(100)
    ours = AdaptiveProportion().double()
    scaled = AdaptiveProportion().double()
    np.testing.assert_allclose(run(ours, losses)[1], run(scaled, 1e3 * losses)[1])


def test_proportion_is_held_for_a_fixed_cycle():
    _, proportions = run(AdaptiveProportion(update_cycle=5), noisy_descent(26))
    changes = np.flatnonzero(np.diff(proportions)) + 1
    # Set by the first measurement, then every fifth.
    assert changes.tolist() == [5, 10, 15, 20, 25]


def test_predicted_cycle_is_short_on_a_slope_and_long_on_a_plateau():
    def updates(losses):
        _, proportions = run(AdaptiveProportion(), losses)
        return np.count_nonzero(np.diff(proportions[50:]))

    steep = updates(np.exp(-np.arange(250) / 20))
    flat = updates(np.full(250, 0.7))
    assert flat < 0.5 * steep


def test_predicted_cycle_keeps_to_its_range():
    proportion = AdaptiveProportion(update_cycle_range=(4, 6))
    run(proportion, np.full(300, 0.5))
    last = proportion.next_update.item()
    run(proportion, np.full(6, 0.5))
    assert 4 <= proportion.next_update.item() - last <= 6


def test_invalid_measurement_leaves_the_state_alone():
    proportion = AdaptiveProportion()
    run(proportion, noisy_descent(10))
    state = {name: buffer.clone() for name, buffer in proportion.named_buffers()}
    proportion.observe(torch.tensor(torch.nan), FALSE)
    proportion.observe(torch.tensor(5.0), FALSE)
    for name, buffer in proportion.named_buffers():
        assert torch.equal(buffer, state[name])


def test_losses_of_zero_keep_the_state_finite():
    proportion = AdaptiveProportion()
    gains, _ = run(proportion, [0.0] * 20 + [1.0] * 20)
    assert np.isfinite(gains).all()
    for buffer in proportion.buffers():
        assert buffer.isfinite().all()


def test_buffers_never_change_identity():
    proportion = AdaptiveProportion()
    before = {name: id(b) for name, b in proportion.named_buffers()}
    run(proportion, [1.0, 0.9])
    assert before == {name: id(b) for name, b in proportion.named_buffers()}


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'update_cycle': 0}, ValueError, 'update_cycle: .* >= 1, got 0'),
        (
            {'update_cycle': 2.5},
            TypeError,
            'update_cycle: expected an integer, got 2.5',
        ),
        ({'update_fraction': 0}, ValueError, 'update_fraction: .* > 0, got 0'),
        (
            {'update_cycle_range': (9, 3)},
            ValueError,
            r'update_cycle_range\[1\]: .* >= 9, got 3',
        ),
        (
            {'update_cycle_range': (1, 2, 3)},
            ValueError,
            r'update_cycle_range: expected \(T_min, T_max\), got \(1, 2, 3\)',
        ),
        ({'trend_noise': 0}, ValueError, 'trend_noise: .* > 0, got 0'),
        ({'noise_forgetting': 1.1}, ValueError, 'noise_forgetting: .* <= 1, got 1.1'),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        AdaptiveProportion(**options)
