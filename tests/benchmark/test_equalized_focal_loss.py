import numpy as np
import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS

from daal_mmdet.benchmark import EqualizedFocalLoss
from daal_mmdet.benchmark.equalized_focal_loss import equalized_focal_elements
from tests import oracles

RATIO = [1.0, 0.4, 0.0]


def case(N=8, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(scale * rng.normal(size=(N, 3))).requires_grad_()
    return logits, torch.from_numpy(np.arange(N) % 4)


def one_hot(labels):
    return torch.nn.functional.one_hot(labels, 4)[:, :3]


@pytest.mark.parametrize('scale', [1.0, 30.0])
def test_elements_match_the_oracle(scale):
    logits, labels = case(scale=scale)
    got = equalized_focal_elements(logits, one_hot(labels), torch.tensor(RATIO))
    loss, grad = oracles.equalized_focal(logits.detach(), labels, RATIO, 2.0, 8.0, 0.25)
    np.testing.assert_allclose(got.detach(), loss, rtol=1e-6, atol=1e-12)
    (gradient,) = torch.autograd.grad(got.sum(), logits)
    np.testing.assert_allclose(gradient, grad, rtol=1e-5, atol=1e-12)


def test_gradcheck():
    logits, labels = case(5)
    assert torch.autograd.gradcheck(
        lambda x: equalized_focal_elements(x, one_hot(labels), torch.tensor(RATIO)),
        logits,
    )


def test_a_certain_logit_has_a_finite_gradient_where_the_exponent_is_below_one():
    logits = torch.tensor([[200.0, -200.0, 200.0]], requires_grad=True)
    targets = torch.tensor([[1, 0, 0]])
    loss = equalized_focal_elements(logits, targets, torch.ones(3), gamma=0.5)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, 0.75]]))


def test_half_precision_is_computed_in_float32():
    logits, labels = case()
    low = equalized_focal_elements(
        logits.bfloat16(), one_hot(labels), torch.tensor(RATIO)
    )
    assert low.dtype == torch.float32
    exact = equalized_focal_elements(
        logits.bfloat16().double(), one_hot(labels), torch.tensor(RATIO)
    )
    torch.testing.assert_close(low.double(), exact, rtol=1e-4, atol=1e-6)


def test_ratio_follows_the_gradients_of_whole_iterations():
    loss_cls = MODELS.build(
        dict(type='EqualizedFocalLoss', num_classes=3, loss_weight=2.0)
    )
    assert loss_cls.gradient_ratio().tolist() == [1, 1, 1]
    positive, negative = np.zeros(3), np.zeros(3)
    for iteration in range(3):
        ratio = np.ones(3)
        if iteration:
            ratio = np.minimum(positive / (negative + 1e-10), 1)
        levels = [case(6, seed=10 * iteration + level) for level in range(2)]
        # Both levels before any gradient, as heads do.
        total = sum(loss_cls(*level, avg_factor=4) for level in levels)
        total.backward()
        value = 0.0
        for logits, labels in levels:
            loss, grad = oracles.equalized_focal(
                logits.detach(), labels, ratio, 2.0, 8.0, 0.25
            )
            grad = np.abs(grad) * 2 / 4
            value += loss.sum() * 2 / 4
            hit = one_hot(labels).numpy()
            positive += (grad * hit).sum(0)
            negative += (grad * (1 - hit)).sum(0)
        assert total.item() == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(loss_cls.pos_grad, positive, rtol=1e-5)
    np.testing.assert_allclose(loss_cls.neg_grad, negative, rtol=1e-5)
    # Checkpointed with the model.
    assert set(loss_cls.state_dict()) == {'pos_grad', 'neg_grad'}


def test_evaluation_and_overflow_leave_the_sums_as_they_are():
    loss_cls = EqualizedFocalLoss(num_classes=3)
    logits, labels = case()
    loss_cls.eval()(logits, labels).backward()
    assert loss_cls.pos_grad.abs().sum() == 0
    (loss_cls.train()(logits, labels) * float('inf')).backward()
    assert loss_cls.pos_grad.abs().sum() == 0
    loss_cls(logits, labels).backward()
    assert loss_cls.pos_grad.abs().sum() > 0


def test_gradients_of_other_losses_on_the_same_logits_are_not_counted():
    counted = []
    for share in (0, 5):
        loss_cls = EqualizedFocalLoss(num_classes=3)
        logits, labels = case()
        (loss_cls(logits, labels) + share * logits.square().sum()).backward()
        counted.append(torch.stack((loss_cls.pos_grad, loss_cls.neg_grad)))
    assert torch.equal(*counted)
    assert (counted[0] > 0).any()


def test_without_scale_it_is_the_focal_loss():
    logits, labels = case()
    loss_cls = EqualizedFocalLoss(num_classes=3, scale_factor=0)
    weight = torch.linspace(0, 1, len(labels), dtype=torch.float64)
    for _ in range(2):
        loss = loss_cls(logits, labels, weight, avg_factor=3)
        loss.backward()
    expected = FocalLoss()(logits, labels, weight, avg_factor=3)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert loss_cls(logits, labels, reduction_override='none').shape == (8, 3)


def test_no_rows_give_zero():
    loss_cls = EqualizedFocalLoss(num_classes=3)
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = loss_cls(logits, torch.zeros(0, dtype=torch.long), avg_factor=1)
    loss.backward()
    assert loss.item() == 0
    assert loss_cls.gradient_ratio().tolist() == [1, 1, 1]


def test_errors_name_the_key():
    with pytest.raises(ValueError, match='scale_factor: expected a value >= 0, got -1'):
        EqualizedFocalLoss(num_classes=3, scale_factor=-1)
    with pytest.raises(ValueError, match='use_sigmoid: expected one of'):
        EqualizedFocalLoss(num_classes=3, use_sigmoid=False)
    with pytest.raises(ValueError, match=r'labels \(N,\), got \(2, 4\) and \(2,\)'):
        EqualizedFocalLoss(num_classes=3)(torch.zeros(2, 4), torch.zeros(2).long())
