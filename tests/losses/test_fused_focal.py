import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.losses import focal, fused_focal
from tests import oracles

ALPHAS = (None, 0.0, 0.25, 1.0)
GAMMAS = (0.0, 0.5, 1.0, 2.0, 3.7, 'each')
WEIGHTS = (None, 'rows', 'entries')
SEEDS = st.integers(0, 9999)


def grad_of(value, leaf):
    return torch.autograd.grad(value, leaf)[0].double().numpy()


def case(num_rows, columns, seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(scale * rng.normal(size=(num_rows, columns)))
    return rng, logits.requires_grad_()


def exponent(gamma, columns, rng):
    """As an option and as the oracle takes it."""
    if gamma != 'each':
        return gamma, gamma
    each = rng.choice([0.0, 0.5, 1.0, 2.0, 3.0], size=columns)
    return torch.from_numpy(each), each


def weights(kind, N, C, rng):
    """As a tensor or None, and as the oracle multiplies by it."""
    if kind is None:
        return None, np.ones((N, 1))
    w = rng.uniform(size=N if kind == 'rows' else (N, C))
    return torch.from_numpy(w), w[:, None] if kind == 'rows' else w


def optional(values):
    return None if values is None else torch.from_numpy(values)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(1, 6),
    st.sampled_from(GAMMAS),
    st.sampled_from(ALPHAS),
    st.sampled_from(WEIGHTS),
    st.booleans(),
    SEEDS,
)
def test_sigmoid_sum_matches_the_oracle(N, C, gamma, alpha, weighed, balanced, seed):
    rng, logits = case(N, C, seed)
    labels = torch.from_numpy(rng.integers(0, C + 1, size=N))
    gamma, plain = exponent(gamma, C, rng)
    weight, w = weights(weighed, N, C, rng)
    v = rng.uniform(1, 5, size=C) if balanced else None
    loss, grad = oracles.sigmoid_focal(logits.detach(), labels, plain, alpha, v)
    total = fused_focal.sigmoid_focal_sum(
        logits, labels, gamma, alpha, weight, optional(v)
    ).total
    assert total.item() == pytest.approx((loss * w).sum(), rel=1e-9)
    np.testing.assert_allclose(
        grad_of(3 * total, logits), 3 * grad * w, rtol=1e-7, atol=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 7), st.sampled_from(GAMMAS), st.booleans(), st.booleans(), SEEDS)
def test_quality_sum_matches_the_oracle(N, beta, weighted, balanced, seed):
    rng, logits = case(N, 4, seed)
    labels = torch.from_numpy(rng.integers(0, 5, size=N))
    scores = torch.from_numpy(rng.uniform(size=N))
    beta, plain = exponent(beta, 4, rng)
    weight, w = weights('rows' if weighted else None, N, 4, rng)
    v = rng.uniform(1, 5, size=4) if balanced else None
    loss = oracles.quality_focal(logits.detach(), labels, scores, plain, v)
    total = fused_focal.sigmoid_focal_sum(
        logits, labels, beta, None, weight, optional(v), scores
    ).total
    assert total.item() == pytest.approx((loss * w).sum(), rel=1e-9)
    # PyTorch differentiates the entries.
    entries = focal.quality_focal_elements(logits, labels, scores, beta, optional(v))
    want = grad_of((entries * torch.from_numpy(w)).sum(), logits)
    np.testing.assert_allclose(grad_of(total, logits), want, rtol=1e-7, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 7),
    st.sampled_from(GAMMAS),
    st.sampled_from(ALPHAS),
    st.sampled_from(WEIGHTS),
    st.booleans(),
    SEEDS,
)
def test_soft_sigmoid_sum_matches_the_oracle(N, gamma, alpha, weighed, balanced, seed):
    rng, logits = case(N, 4, seed)
    # Also the ends, where a one-hot target lies.
    targets = rng.uniform(size=(N, 4)).round(rng.integers(0, 3))
    gamma, plain = exponent(gamma, 4, rng)
    weight, w = weights(weighed, N, 4, rng)
    v = rng.uniform(1, 5, size=4) if balanced else None
    loss = oracles.soft_sigmoid_focal(logits.detach().numpy(), targets, plain, alpha, v)
    arguments = logits, torch.from_numpy(targets), gamma, alpha
    total = fused_focal.sigmoid_focal_soft_sum(*arguments, weight, optional(v)).total
    assert total.item() == pytest.approx((loss * w).sum(), rel=1e-8)
    entries = focal.sigmoid_focal_elements(*arguments, optional(v))
    want = grad_of((entries * torch.from_numpy(w)).sum(), logits)
    np.testing.assert_allclose(grad_of(total, logits), want, rtol=1e-6, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 7),
    st.sampled_from(GAMMAS),
    st.sampled_from(ALPHAS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    SEEDS,
)
def test_softmax_sums_match_the_oracle(N, gamma, alpha, weighted, balanced, hard, seed):
    rng, logits = case(N, 5, seed)
    labels = rng.integers(0, 5, size=N)
    targets = np.eye(5)[labels] if hard else rng.dirichlet(np.ones(5), size=N)
    gamma, plain = exponent(gamma, 5, rng)
    weight, w = weights('rows' if weighted else None, N, 5, rng)
    v = rng.uniform(1, 5, size=5) if balanced else None
    loss = oracles.softmax_focal(logits.detach(), targets, plain, alpha, v)
    options = gamma, alpha, weight, optional(v)
    soft = torch.from_numpy(targets)
    totals = [fused_focal.softmax_focal_soft_sum(logits, soft, *options).total]
    if hard:
        labels = torch.from_numpy(labels)
        totals.append(fused_focal.softmax_focal_sum(logits, labels, *options).total)
    rows = focal.softmax_focal_soft_rows(
        logits.log_softmax(1), soft, gamma, alpha, optional(v)
    )
    want = grad_of((rows * torch.from_numpy(w[:, 0])).sum(), logits)
    for total in totals:
        assert total.item() == pytest.approx((loss * w[:, 0]).sum(), rel=1e-8)
        np.testing.assert_allclose(grad_of(total, logits), want, rtol=1e-6, atol=1e-8)


def sums(columns=4, num_rows=6):
    """Each sum of logits, with everything it takes."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(0, columns, (num_rows,), generator=generator)
    soft = uniform(num_rows, columns).softmax(1)
    weight, v = uniform(num_rows), 1 + 4 * uniform(columns)
    scores = uniform(num_rows)
    return {
        'sigmoid': lambda s, gamma, take=None: fused_focal.sigmoid_focal_sum(
            s, labels, gamma, 0.25, weight, v, take=take
        ),
        'quality': lambda s, gamma, take=None: fused_focal.sigmoid_focal_sum(
            s, labels, gamma, None, weight, v, scores, take=take
        ),
        'soft sigmoid': lambda s, gamma, take=None: fused_focal.sigmoid_focal_soft_sum(
            s, soft, gamma, 0.25, weight, v, take=take
        ),
        'softmax': lambda s, gamma, take=None: fused_focal.softmax_focal_sum(
            s, labels, gamma, 0.25, weight, v, take=take
        ),
        'soft softmax': lambda s, gamma, take=None: fused_focal.softmax_focal_soft_sum(
            s, soft, gamma, 0.25, weight, v, take=take
        ),
    }


@pytest.mark.parametrize('gamma', GAMMAS)
@pytest.mark.parametrize('name', sums())
def test_gradcheck(name, gamma):
    rng, logits = case(6, 4)
    gamma, _ = exponent(gamma, 4, rng)
    assert torch.autograd.gradcheck(lambda s: sums()[name](s, gamma).total, logits)


@pytest.mark.parametrize('name', sums())
def test_several_blocks_are_the_same(name, monkeypatch):
    _, logits = case(50, 4)
    function = sums(num_rows=50)[name]
    whole = function(logits, 1.5).total
    want = grad_of(whole, logits)
    monkeypatch.setattr(fused_focal, '_BLOCK', 7 * 4)
    parts = function(logits, 1.5).total
    assert parts.item() == pytest.approx(whole.item(), rel=1e-12)
    np.testing.assert_allclose(grad_of(parts, logits), want, rtol=1e-12)


@pytest.mark.parametrize('name', sums())
def test_extreme_logits_stay_finite(name):
    logits = torch.tensor([[1e4, -1e4, 0.0, 1e4], [-1e4, 1e4, -1e4, 0.0]] * 3)
    logits.requires_grad_()
    for gamma in (0.0, 0.5, 2.0, torch.tensor([0.0, 0.5, 1.0, 2.0])):
        total = sums()[name](logits, gamma).total
        assert total.isfinite()
        assert np.isfinite(grad_of(total, logits)).all()


def test_sigmoid_sum_at_extreme_logits():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [-torch.inf, 0.0]])
    logits.requires_grad_()
    labels = torch.tensor([0, 0, 2])
    total = fused_focal.sigmoid_focal_sum(logits, labels).total
    # Row 0 is right for both classes; row 1 wrong for both by 1e4; row 2 background.
    at_zero = 0.75 * 0.25 * np.log(2)
    assert total.item() == pytest.approx(0.25 * 1e4 + 0.75 * 1e4 + at_zero)
    grad = grad_of(total, logits)
    np.testing.assert_allclose(grad[0], 0)
    np.testing.assert_allclose(grad[1], [-0.25, 0.75])
    assert grad[2, 0] == 0


def test_softmax_sum_of_a_certain_prediction():
    logits = torch.tensor([[1e3, 0.0], [0.0, 1e3]], requires_grad=True)
    total = fused_focal.softmax_focal_sum(logits, torch.tensor([0, 0])).total
    assert total.item() == pytest.approx(1e3)
    np.testing.assert_allclose(grad_of(total, logits), [[0, 0], [-1, 1]], atol=1e-7)


@pytest.mark.parametrize('name', sums())
@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_non_finite_logits_give_a_sum_that_is_not_finite(name, bad):
    logits = torch.zeros(6, 4)
    logits[0] = bad
    assert not sums()[name](logits, 2.0).total.isfinite()


@pytest.mark.parametrize('name', sums())
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    _, logits = case(6, 4)
    half = logits.detach().to(dtype).requires_grad_()
    exact = half.detach().float().requires_grad_()
    total, want = (sums()[name](s, 2.0).total for s in (half, exact))
    assert total.dtype == torch.float32
    assert torch.equal(total, want)
    # A loss scale beyond float16 times a small mean factor must not overflow.
    scaled = grad_of(total * 2.0**17 / 2.0**16, half)
    np.testing.assert_allclose(scaled, 2 * grad_of(want, exact), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize('name', sums())
def test_a_second_derivative_is_refused(name):
    _, logits = case(6, 4)
    total = sums()[name](logits, 2.0).total
    with pytest.raises(RuntimeError, match='can not be differentiated twice; take'):
        torch.autograd.grad(total, logits, create_graph=True)


@pytest.mark.parametrize('name', sums())
def test_a_retained_graph_gives_the_gradient_again(name):
    _, logits = case(6, 4)
    total = sums()[name](logits, 1.5).total
    first, second, third = (
        torch.autograd.grad(factor * total, logits, retain_graph=True)[0]
        for factor in (1.0, 0.0, 2.0)
    )
    torch.testing.assert_close(third, 2 * first)
    assert not second.any()


@pytest.mark.parametrize('name', sums())
def test_rows_are_handed_out_and_their_gradient_comes_back(name):
    _, logits = case(6, 4)
    # A row that is taken twice gets both.
    take = torch.tensor([4, 0, 4])
    total, rows = sums()[name](logits, 1.5, take)
    assert torch.equal(rows, logits[take])
    assert sums()[name](logits, 1.5).rows is None
    factor = torch.randn(3, 4, dtype=torch.float64)
    got = grad_of(2 * total + (factor * rows.sin()).sum(), logits)
    alone = sums()[name](logits, 1.5).total
    want = grad_of(2 * alone + (factor * logits[take].sin()).sum(), logits)
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize('name', sums())
def test_rows_alone_are_differentiated(name):
    _, logits = case(6, 4)
    _, rows = sums()[name](logits, 1.5, torch.tensor([2]))
    want = np.zeros((6, 4))
    want[2] = 3
    np.testing.assert_array_equal(grad_of(3 * rows.sum(), logits), want)


@pytest.mark.parametrize('name', sums())
def test_gradcheck_with_rows(name):
    _, logits = case(6, 4)
    take = torch.tensor([1, 5])
    assert torch.autograd.gradcheck(lambda s: sums()[name](s, 2.0, take), logits)
