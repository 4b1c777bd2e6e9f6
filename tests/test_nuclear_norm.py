import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.nuclear_norm import METHODS, nuclear_norm
from tests import oracles

EXACT = ('svd', 'gram', 'newton_schulz', 'auto')


def value_and_grad(matrix, method):
    matrix = matrix.clone().requires_grad_()
    value = nuclear_norm(matrix, method)
    (grad,) = torch.autograd.grad(value.sum(), matrix)
    return value.detach(), grad


def softmax_rows(rows, columns, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, columns, generator=generator)).softmax(1)


@pytest.mark.parametrize('method', EXACT)
@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (5, 1), (7, 3), (3, 7), (64, 20)])
def test_value_and_gradient_match_an_svd(method, shape):
    A = softmax_rows(*shape)
    value, grad = value_and_grad(A, method)
    want, polar = oracles.nuclear_norm(A)
    assert value.item() == pytest.approx(want, rel=2e-5)
    assert np.linalg.norm(grad.numpy() - polar) <= 2e-4 * np.linalg.norm(polar)


@pytest.mark.parametrize('method', ['svd', 'gram'])
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 9999))
def test_exact_methods_on_random_matrices(method, rows, columns, seed):
    rng = np.random.default_rng(seed)
    A = torch.from_numpy(rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-3, 4))
    value, grad = value_and_grad(A, method)
    want, polar = oracles.nuclear_norm(A)
    assert value.item() == pytest.approx(want, rel=1e-7)
    # A square matrix may be close to singular, where its polar factor is ill-defined.
    if np.linalg.cond(A) < 1e4:
        np.testing.assert_allclose(grad, polar, atol=1e-6)


@pytest.mark.parametrize('method', ['svd', 'gram', 'newton_schulz', 'fast'])
def test_gradient_matches_finite_differences(method):
    A = softmax_rows(6, 4).double().requires_grad_()
    # Newton-Schulz converges to 1e-7 or so of the polar factor, not to rounding.
    assert torch.autograd.gradcheck(
        lambda A: nuclear_norm(A, method), A, atol=1e-4, rtol=1e-4
    )


def test_newton_schulz_is_as_accurate_as_stated_on_a_large_softmax():
    A = softmax_rows(128, 1203)
    want, polar = oracles.nuclear_norm(A)
    value, grad = value_and_grad(A, 'newton_schulz')
    assert value.item() == pytest.approx(want, rel=2e-5)
    assert np.linalg.norm(grad.numpy() - polar) <= 1e-4 * np.linalg.norm(polar)


@pytest.mark.parametrize('method', EXACT)
def test_rank_deficient_matrix_gets_the_minimum_norm_subgradient(method):
    one_hot = torch.eye(4)[torch.tensor([0, 0, 1, 1, 1])]
    value, grad = value_and_grad(one_hot, method)
    want, polar = oracles.nuclear_norm(one_hot)
    assert want == pytest.approx(2**0.5 + 3**0.5)
    assert value.item() == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(grad, polar, atol=1e-4)


@pytest.mark.parametrize('method', METHODS)
def test_rows_of_zeros_change_nothing(method):
    A = softmax_rows(5, 8)
    padded = torch.cat((A, torch.zeros(7, 8)))
    value, grad = value_and_grad(A, method)
    padded_value, padded_grad = value_and_grad(padded, method)
    torch.testing.assert_close(padded_value, value, rtol=1e-5, atol=0)
    torch.testing.assert_close(padded_grad[:5], grad, rtol=1e-3, atol=1e-4)
    assert padded_grad[5:].abs().max() < 1e-6


@pytest.mark.parametrize('method', METHODS)
def test_batches_are_matrix_by_matrix(method):
    stack = torch.stack([softmax_rows(6, 4, seed) for seed in range(3)])
    value, grad = value_and_grad(stack.reshape(3, 1, 6, 4), method)
    assert value.shape == (3, 1)
    for i in range(3):
        one, one_grad = value_and_grad(stack[i], method)
        torch.testing.assert_close(value[i, 0], one)
        torch.testing.assert_close(grad[i, 0], one_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_zero_matrix(method):
    value, grad = value_and_grad(torch.zeros(3, 4), method)
    assert value.item() == 0
    assert torch.equal(grad, torch.zeros(3, 4))


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('shape', [(0, 4), (4, 0), (2, 0, 3)])
def test_empty_matrix(method, shape):
    value, grad = value_and_grad(torch.zeros(shape), method)
    assert value.shape == shape[:-2]
    assert torch.equal(value, torch.zeros(shape[:-2]))
    assert grad.shape == shape


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
def test_non_finite_input_gives_nan_and_spares_the_rest_of_the_batch(method, bad):
    stack = torch.stack((softmax_rows(4, 3), softmax_rows(4, 3, 1)))
    stack[0, 1, 2] = bad
    value, grad = value_and_grad(stack, method)
    assert not value[0].isfinite()
    assert not grad[0].isfinite().all()
    assert value[1].isfinite()
    assert grad[1].isfinite().all()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(method, dtype):
    A = softmax_rows(32, 6).to(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value, grad = value_and_grad(A, method)
    assert value.dtype == torch.float32
    assert grad.dtype == dtype
    assert value.item() == pytest.approx(nuclear_norm(A.float(), method).item())


def test_fast_is_the_sum_of_the_largest_column_norms():
    A = softmax_rows(3, 6)
    norms = A.norm(dim=0)
    top = norms.sort(descending=True).indices[:3]
    value, grad = value_and_grad(A, 'fast')
    assert value.item() == pytest.approx(norms[top].sum().item())
    want = torch.zeros_like(A)
    want[:, top] = A[:, top] / norms[top]
    torch.testing.assert_close(grad, want)


def test_second_derivative_is_refused():
    A = softmax_rows(4, 3).requires_grad_()
    value = nuclear_norm(A, 'gram')
    with pytest.raises(RuntimeError, match='nuclear_norm can not be .* twice'):
        torch.autograd.grad(value, A, create_graph=True)


def test_errors_name_the_argument():
    with pytest.raises(
        ValueError, match="method: expected one of .*'gram'.*, got 'qr'"
    ):
        nuclear_norm(torch.eye(2), 'qr')
    with pytest.raises(
        ValueError, match=r'matrix: .* got torch.int64 of shape \(2, 2\)'
    ):
        nuclear_norm(torch.eye(2).long())
    with pytest.raises(ValueError, match=r'of shape \(3,\)'):
        nuclear_norm(torch.ones(3))


@pytest.mark.parametrize('shape', [(5, 20), (20, 5)])
def test_gram_of_nearly_equal_rows_or_columns_is_as_exact_as_float64(shape):
    rng = np.random.default_rng(0)
    columns = rng.random((1, 20)) + 1e-5 * rng.normal(size=(5, 20))
    A = torch.from_numpy(columns.reshape(5, 20).astype(np.float32))
    A = A if shape == (5, 20) else A.mT
    assert np.linalg.cond(A.double()) > 1e5
    _, grad = value_and_grad(A, 'gram')
    _, polar = oracles.nuclear_norm(A)
    assert np.linalg.norm(grad.numpy() - polar) <= 1e-5 * np.linalg.norm(polar)


@pytest.mark.parametrize('shape', [(300, 270), (260, 400), (2, 40, 30)])
@pytest.mark.parametrize('spread', [0.2, 1.0, 4.0])
def test_gram_without_its_largest_eigenvalue_is_exact(shape, spread, monkeypatch):
    monkeypatch.setattr('daal_mmdet.nuclear_norm._LARGE', 30)
    generator = torch.Generator().manual_seed(0)
    A = (spread * torch.randn(shape, generator=generator)).softmax(-1).requires_grad_()
    value = nuclear_norm(A, 'gram')
    (slope,) = torch.autograd.grad(value.sum(), A)
    U, S, Vh = torch.linalg.svd(A.detach().double(), full_matrices=False)
    torch.testing.assert_close(value.double(), S.sum(-1), rtol=1e-5, atol=0)
    want = U @ Vh
    assert torch.linalg.vector_norm(slope - want) <= 1e-4 * want.norm()
