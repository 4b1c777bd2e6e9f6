import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS

from daal_mmdet.losses.bnm_loss import (
    NORMALIZATIONS,
    BNMLoss,
    _choose_rows_without_sync,
    batch_nuclear_norm_loss,
    choose_rows,
)
from tests import oracles


def random_logits(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 8),
    st.sampled_from(NORMALIZATIONS),
    st.sampled_from(['svd', 'gram']),
    st.integers(0, 999),
)
def test_value_matches_the_oracle(B, C, normalization, method, seed):
    logits = random_logits(B, C, seed)
    loss = batch_nuclear_norm_loss(logits, None, normalization, method)
    want = oracles.batch_nuclear_norm_loss(logits, normalization)
    assert loss.item() == pytest.approx(want, rel=1e-6, abs=1e-7)
    if normalization == 'bound':
        assert -1e-9 <= loss.item() < 1


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
@pytest.mark.parametrize('method', ['svd', 'gram', 'newton_schulz'])
def test_gradient_of_the_marked_rows(normalization, method):
    logits = random_logits(6, 4).requires_grad_()
    mask = torch.tensor([True, False, True, True, False, True])
    assert torch.autograd.gradcheck(
        lambda s: batch_nuclear_norm_loss(s, mask, normalization, method),
        logits,
        atol=1e-4,
        rtol=1e-4,
    )


def test_bound_is_reached_by_certain_and_diverse_rows():
    certain = 1e4 * torch.eye(4)[torch.arange(12) % 4]
    assert batch_nuclear_norm_loss(certain).item() == pytest.approx(0, abs=1e-6)
    collapsed = 1e4 * torch.eye(4)[torch.zeros(12, dtype=torch.long)]
    assert batch_nuclear_norm_loss(collapsed).item() == pytest.approx(0.5)
    undecided = torch.zeros(12, 4)
    assert batch_nuclear_norm_loss(undecided).item() == pytest.approx(0.75)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_no_marked_row_gives_zero_with_a_zero_gradient(normalization):
    for rows in (0, 3):
        logits = torch.zeros(rows, 4, requires_grad=True)
        mask = torch.zeros(rows, dtype=torch.bool)
        loss = batch_nuclear_norm_loss(logits, mask, normalization)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(logits.grad, torch.zeros(rows, 4))


def test_single_row_and_single_class():
    assert batch_nuclear_norm_loss(torch.zeros(1, 4)).item() == pytest.approx(0.5)
    assert batch_nuclear_norm_loss(torch.zeros(5, 1)).item() == pytest.approx(0)


def test_rows_above_the_cap_are_thinned_out_evenly():
    mask = torch.arange(100) >= 20
    index, taken = choose_rows(mask, max_rows=8)
    assert index.tolist() == [20, 30, 40, 50, 60, 70, 80, 90]
    assert taken.all()
    index, _ = choose_rows(mask, max_rows=80)
    assert index.tolist() == list(range(20, 100))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(1, 12), st.integers(0, 999))
def test_device_path_takes_the_same_rows_as_the_cpu_path(N, cap, seed):
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.uniform(size=N) < 0.4)
    want, _ = choose_rows(mask, cap)
    index, taken = _choose_rows_without_sync(mask, cap)
    assert len(index) == min(N, cap)
    assert torch.equal(index[taken], want)


def test_module_is_registered_and_drops_the_background():
    loss = MODELS.build({'type': 'BNMLoss', 'loss_weight': 0.5})
    logits = random_logits(6, 5)
    target = torch.tensor([0, 4, 1, 2, 4, 3])
    weight = torch.tensor([1.0, 1, 0, 1, 1, 1])
    rows = logits[torch.tensor([0, 3, 5]), :4]
    want = 0.5 * oracles.batch_nuclear_norm_loss(rows, 'bound')
    assert loss(logits, target, weight).item() == pytest.approx(want, rel=1e-6)


def test_module_without_target_takes_every_row():
    logits = random_logits(6, 5)
    loss = BNMLoss(normalization='batch', use_sigmoid=True)(logits)
    want = oracles.batch_nuclear_norm_loss(logits, 'batch')
    assert loss.item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'loss_weight': -1}, ValueError, 'loss_weight: .* >= 0, got -1'),
        (
            {'loss_weight': 'big'},
            TypeError,
            "loss_weight: expected a number, got 'big'",
        ),
        ({'normalization': 'sum'}, ValueError, "normalization: .*'bound'.*, got 'sum'"),
        ({'method': 'qr'}, ValueError, "method: .*'gram'.*, got 'qr'"),
        ({'max_rows': 0}, ValueError, 'max_rows: .* >= 1, got 0'),
        ({'max_rows': 2.5}, TypeError, 'max_rows: expected an integer, got 2.5'),
        ({'use_sigmoid': 1}, TypeError, 'use_sigmoid: expected True or False, got 1'),
        ({'gamma': 2}, TypeError, 'gamma'),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        BNMLoss(**options)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r'pred: .* got \(2, 3, 4\)'):
        BNMLoss()(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r'target: expected shape \(2,\), got \(3,\)'):
        BNMLoss()(torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(
        ValueError, match=r'weight: expected shape \(2,\), got \(2, 3\)'
    ):
        BNMLoss()(torch.zeros(2, 3), weight=torch.zeros(2, 3))
