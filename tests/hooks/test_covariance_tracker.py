"""Loss, tracker and filters together, against an oracle that runs step by step."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.covariance_bank import COVARIANCES, CovarianceBank
from daal_mmdet.hooks.covariance_tracker import Announcement, CovarianceTracker
from daal_mmdet.losses.uncertainty_aware_smooth_l1 import UncertaintyAwareSmoothL1
from tests.oracles import ResidualFilters, smooth_l1

SLOTS, ROWS = 6, 7


def make_tracker(loss, **options) -> CovarianceTracker:
    bank = CovarianceBank(**options)
    tracker = CovarianceTracker(loss, bank, 'head.loss_bbox')
    assert tracker.level(0, 2, (1, 3)) == 0
    loss.tracker = tracker
    return tracker


@pytest.mark.parametrize('normalize', ['mean', None])
@pytest.mark.parametrize('covariance', COVARIANCES)
@settings(max_examples=25, deadline=None)
@given(
    history=st.lists(
        st.lists(st.integers(0, SLOTS - 1), max_size=ROWS), min_size=1, max_size=6
    ),
    seed=st.integers(0, 2**16),
    beta=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_value_and_gradient_over_a_training(covariance, normalize, history, seed, beta):
    rng = np.random.default_rng(seed)
    loss = UncertaintyAwareSmoothL1(beta=beta, normalize=normalize)
    options = dict(process_noise=0.01, initial_variance=0.5, forgetting=0.9)
    tracker = make_tracker(loss, covariance=covariance, noise_prior=5.0, **options)
    oracle = ResidualFilters(
        [0, 1] * 3, [0, 0], covariance == 'full', 0.01, None, 0.5, 0.9, 5.0
    )
    for slots in history:
        rows = np.sort(rng.choice(ROWS, len(slots), replace=False))
        pred = torch.from_numpy(rng.normal(size=(ROWS, 4))).requires_grad_()
        target = torch.from_numpy(rng.normal(size=(ROWS, 4)))
        weight = torch.zeros(ROWS, 4, dtype=torch.float64)
        weight[rows] = 1.0
        announced = Announcement(
            ROWS, torch.from_numpy(rows), torch.tensor(slots).long()
        )
        tracker.announce([announced], skip_empty=False)
        value = loss(pred, target, weight, avg_factor=3.0)
        value.backward()
        tracker.step()

        elements, slopes = smooth_l1(pred.detach().numpy(), target.numpy(), beta)
        expected, gradient = 0.0, np.zeros((ROWS, 4))
        if slots:
            limit = 10.0 if normalize else np.inf
            scale = oracle.weights(slots, normalize, limit)[:, None] / 3.0
            expected = (elements[rows] * scale).sum()
            gradient[rows] = slopes[rows] * scale
        np.testing.assert_allclose(value.detach(), expected, rtol=1e-3, atol=1e-12)
        np.testing.assert_allclose(pred.grad, gradient, rtol=1e-3, atol=1e-12)
        residuals = (target - pred).detach().numpy()[rows]
        oracle.step(list(zip(slots, residuals, strict=True)))


def test_noisier_anchors_weigh_less_and_histories_can_be_swapped():
    weights = []
    for swapped in (False, True):
        rng = np.random.default_rng(3)
        loss = UncertaintyAwareSmoothL1()
        tracker = make_tracker(loss)
        first, second = (2, 0) if swapped else (0, 2)
        for _ in range(60):
            residuals = rng.normal(size=(2, 4)) * np.array([[0.1], [0.5]])
            pred = torch.zeros(2, 4, requires_grad=True)
            slots = torch.tensor([first, second])
            tracker.announce([Announcement(2, None, slots)], skip_empty=True)
            loss(pred, torch.from_numpy(residuals).float(), avg_factor=1.0)
            tracker.step()
        slots = torch.tensor([0, 2])
        tracker.announce([Announcement(2, None, slots)], skip_empty=True)
        weights.append(tracker.next_call(2).weights)
    assert weights[0][0] > 1 > weights[0][1]
    torch.testing.assert_close(weights[0], weights[1].flip(0))


def test_empty_calls_are_skipped_only_where_the_head_skips_them():
    loss = UncertaintyAwareSmoothL1()
    tracker = make_tracker(loss)
    empty = torch.zeros(0, dtype=torch.int64)
    calls = [Announcement(0, None, empty), Announcement(2, None, torch.tensor([1, 3]))]
    tracker.announce(calls, skip_empty=True)
    assert len(tracker.next_call(2).weights) == 2
    tracker.announce(calls, skip_empty=False)
    assert len(tracker.next_call(0).weights) == 0
    assert len(tracker.next_call(2).weights) == 2


def test_rows_that_do_not_fit_the_announcement_are_errors():
    loss = UncertaintyAwareSmoothL1()
    tracker = make_tracker(loss)
    with pytest.raises(RuntimeError, match=r'head.loss_bbox: .* 5 rows came, but none'):
        tracker.next_call(5)
    calls = [Announcement(2, None, torch.tensor([1, 3]))] * 2
    tracker.announce(calls, skip_empty=False)
    with pytest.raises(
        RuntimeError, match=r'with 5 rows came, but 2 rows was expected'
    ):
        tracker.next_call(5)
    tracker.next_call(2)
    with pytest.raises(RuntimeError, match='1 calls of the loss were expected'):
        tracker.announce(calls, skip_empty=False)
    # Told once.
    tracker.announce(calls, skip_empty=False)


@pytest.mark.parametrize('mode', ['eval', 'no_grad'])
def test_an_evaluation_leaves_no_measurement(mode):
    loss = UncertaintyAwareSmoothL1(beta=0)
    tracker = make_tracker(loss)
    call = Announcement(2, torch.tensor([0]), torch.tensor([3]))
    pred = torch.zeros(2, 4, requires_grad=True)
    for evaluates, visits in ((False, 1), (True, 1)):
        loss.train(mode == 'no_grad' or not evaluates)
        tracker.announce([call], skip_empty=False)
        with torch.set_grad_enabled(mode == 'eval' or not evaluates):
            loss(pred, torch.ones(2, 4), avg_factor=1.0)
        tracker.step()
        assert tracker.bank.visits.sum() == visits


def test_calls_without_slots_weigh_the_same_and_are_not_measured():
    loss = UncertaintyAwareSmoothL1(beta=0)
    tracker = make_tracker(loss)
    tracker.extra_calls = True
    pred = torch.zeros(3, 4, requires_grad=True)
    value = loss(pred, torch.ones(3, 4), avg_factor=1.0)
    assert value.item() == pytest.approx(12)
    tracker.step()
    assert tracker.bank.visits.sum() == 0


def test_levels_are_made_once_and_keep_their_templates():
    tracker = make_tracker(UncertaintyAwareSmoothL1())
    assert tracker.level(7, 3, (2, 2)) == 1
    # Another size of the map is the same level.
    assert tracker.level(7, 3, (5, 9)) == 1
    assert tracker.bank.levels == [(2, 1, 3), (3, 2, 2)]
    with pytest.raises(ValueError, match='level 7 has 4 templates, .* have 3'):
        tracker.level(7, 4, (2, 2))
