import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from daal_mmdet.losses.confusion import confusion_loss
from tests import oracles


def case(K, C, seed, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(K, C, generator=generator, dtype=torch.float64)
    targets = torch.rand(K, C, generator=generator, dtype=torch.float64)
    weight = 1 + 2 * torch.rand(C, generator=generator, dtype=torch.float64)
    return logits, targets, weight


@given(
    K=st.integers(0, 6),
    C=st.integers(1, 5),
    seed=st.integers(0, 1000),
    scale=st.sampled_from((0.0, 1.0, 50.0)),
)
def test_value_and_gradient_match_the_oracle(K, C, seed, scale):
    logits, targets, weight = case(K, C, seed, scale)
    logits.requires_grad_()
    value = confusion_loss(logits, targets, class_weight=weight)
    want = oracles.confusion(logits.detach(), targets, weight)
    np.testing.assert_allclose(value.item(), want, rtol=1e-9, atol=1e-12)
    (grad,) = torch.autograd.grad(value, logits)
    slope = oracles.numeric_gradient(
        lambda s: oracles.confusion(s, targets, weight), logits.detach().numpy()
    )
    np.testing.assert_allclose(grad, slope, rtol=1e-5, atol=1e-6)


def test_gradient_and_the_marked_rows():
    logits, targets, weight = case(5, 4, 0)
    mask = torch.tensor([True, False, True, True, False])
    assert torch.autograd.gradcheck(
        lambda s: confusion_loss(s, targets, mask, weight), logits.requires_grad_()
    )
    value = confusion_loss(logits, targets, mask)
    torch.testing.assert_close(value, confusion_loss(logits[mask], targets[mask]))
    # A row that does not count may hold anything.
    (grad,) = torch.autograd.grad(value, logits)
    assert (grad[~mask] == 0).all()


def test_height_of_a_row_does_not_count():
    """Only which class is above which, so that no class is held down by it."""
    logits, targets, _ = case(5, 4, 1)
    higher = logits + torch.arange(5.0)[:, None]
    torch.testing.assert_close(
        confusion_loss(higher, targets), confusion_loss(logits, targets)
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_extreme_logits_compute_in_float32(dtype):
    logits = torch.tensor([[6e4, -6e4, 0.0], [-1.0, 2.0, 0.5]], dtype=dtype)
    logits.requires_grad_()
    targets = torch.eye(3)[[1, 2]]
    value = confusion_loss(logits, targets)
    assert value.dtype == torch.float32
    want = oracles.confusion(logits.detach().double(), targets, np.ones(3))
    assert value.item() == pytest.approx(want, rel=1e-6)
    value.backward()
    assert logits.grad.isfinite().all()


def test_no_row_and_a_single_class_give_zero_with_a_zero_gradient():
    for shape in ((0, 4), (3, 1)):
        logits = torch.randn(shape, requires_grad=True)
        value = confusion_loss(logits, torch.ones(shape))
        value.backward()
        assert value.item() == 0
        assert (logits.grad == 0).all()
    logits = torch.randn(3, 4, requires_grad=True)
    value = confusion_loss(logits, torch.ones(3, 4), torch.zeros(3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()
