import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.losses import focal
from tests import oracles

ALPHAS = (None, 0.0, 0.25, 1.0)
GAMMAS = (0.0, 0.5, 1.0, 2.0, 3.7)


def grad_of(value, leaf):
    return torch.autograd.grad(value, leaf)[0].double().numpy()


def case(num_rows, num_classes, seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(scale * rng.normal(size=(num_rows, num_classes)))
    labels = torch.from_numpy(rng.integers(0, num_classes + 1, size=num_rows))
    return rng, logits.requires_grad_(), labels


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(GAMMAS),
    st.sampled_from(ALPHAS),
    st.booleans(),
    st.integers(0, 9999),
)
def test_soft_targets_match_the_oracle(gamma, alpha, balanced, seed):
    rng, logits, _ = case(6, 4, seed)
    targets = rng.uniform(size=(6, 4))
    v = rng.uniform(1, 5, size=4) if balanced else None
    ours = focal.sigmoid_focal_elements(
        logits,
        torch.from_numpy(targets),
        gamma,
        alpha,
        None if v is None else torch.from_numpy(v),
    )
    want = oracles.soft_sigmoid_focal(logits.detach().numpy(), targets, gamma, alpha, v)
    np.testing.assert_allclose(ours.detach(), want, rtol=1e-9, atol=1e-12)


def test_soft_targets_gradients():
    _, logits, _ = case(4, 3)
    targets, v = torch.rand(4, 3).double(), torch.rand(3).double() + 1
    assert torch.autograd.gradgradcheck(
        lambda s: focal.sigmoid_focal_elements(s, targets, 1.5, 0.3, v), logits
    )


def test_an_exponent_a_class_is_that_exponent_in_its_column():
    _, logits, labels = case(6, 3)
    gammas = torch.tensor([0.0, 0.5, 2.0]).double()
    targets = torch.rand(6, 3).double()
    scores = torch.rand(6).double()
    whole = focal.sigmoid_focal_elements(logits, targets, gammas)
    quality = focal.quality_focal_elements(logits, labels, scores, gammas)
    for c, gamma in enumerate(gammas.tolist()):
        alone = focal.sigmoid_focal_elements(logits, targets, gamma)
        torch.testing.assert_close(whole[:, c], alone[:, c])
        alone = focal.quality_focal_elements(logits, labels, scores, gamma)
        torch.testing.assert_close(quality[:, c], alone[:, c])
    rows = focal.softmax_focal_rows(logits.log_softmax(1), labels.clamp(max=2), gammas)
    want = oracles.softmax_focal(
        logits.detach(), np.eye(3)[labels.clamp(max=2)], gammas.numpy(), None
    )
    np.testing.assert_allclose(rows.detach(), want)


def test_probabilities_give_the_loss_of_their_logits():
    _, logits, _ = case(6, 4)
    targets, v = torch.rand(6, 4).double(), torch.rand(4).double() + 1
    ours = focal.probability_focal_elements(logits.sigmoid(), targets, 2.0, 0.25, v)
    targets, v = targets.numpy(), v.numpy()
    p = oracles.sigmoid(logits.detach())
    bce = -targets * np.log(p) - (1 - targets) * np.log(1 - p)
    distance = targets * (1 - p) + (1 - targets) * p
    balance = 0.25 * targets + 0.75 * (1 - targets)
    want = balance * distance**2 * bce * (1 + (v - 1) * targets)
    np.testing.assert_allclose(ours.detach(), want)


def test_probabilities_of_zero_and_one_stay_finite():
    p = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = focal.probability_focal_elements(p, torch.tensor([[1.0, 0.0]]))
    assert loss.tolist() == [[25.0, 75.0]]
    assert np.isfinite(grad_of(loss.sum(), p)).all()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GAMMAS), st.booleans(), st.booleans(), st.integers(0, 9999))
def test_quality_targets_match_the_oracle(beta, balanced, activated, seed):
    rng, logits, labels = case(6, 4, seed)
    scores = rng.uniform(size=6)
    v = rng.uniform(1, 5, size=4) if balanced else None
    ours = focal.quality_focal_elements(
        logits.sigmoid() if activated else logits,
        labels,
        torch.from_numpy(scores),
        beta,
        None if v is None else torch.from_numpy(v),
        activated,
    )
    want = oracles.quality_focal(logits.detach(), labels, scores, beta, v)
    np.testing.assert_allclose(ours.detach(), want, rtol=1e-6, atol=1e-9)


def test_quality_targets_gradcheck():
    _, logits, labels = case(5, 3)
    scores, v = torch.rand(5).double(), torch.rand(3).double() + 1
    assert torch.autograd.gradcheck(
        lambda s: focal.quality_focal_elements(s, labels, scores, 2.0, v), logits
    )


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GAMMAS), st.sampled_from(ALPHAS), st.integers(0, 9999))
def test_softmax_rows_match_the_oracle(gamma, alpha, seed):
    rng, logits, _ = case(6, 5, seed)
    labels = torch.from_numpy(rng.integers(0, 5, size=6))
    log_p = logits.log_softmax(1)
    hard = focal.softmax_focal_rows(log_p, labels, gamma, alpha)
    want = oracles.softmax_focal(logits.detach(), np.eye(5)[labels], gamma, alpha)
    np.testing.assert_allclose(hard.detach(), want, rtol=1e-7, atol=1e-9)

    soft, v = rng.dirichlet(np.ones(5), size=6), rng.uniform(1, 5, size=5)
    ours = focal.softmax_focal_soft_rows(
        log_p, torch.from_numpy(soft), gamma, alpha, torch.from_numpy(v)
    )
    want = oracles.softmax_focal(logits.detach(), soft, gamma, alpha, v)
    np.testing.assert_allclose(ours.detach(), want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_softmax_rows_gradients(gamma):
    _, logits, labels = case(5, 4)
    labels = labels.clamp(max=3)
    soft = torch.rand(5, 4).double().softmax(1)
    for function, target in (
        (focal.softmax_focal_rows, labels),
        (focal.softmax_focal_soft_rows, soft),
    ):
        assert torch.autograd.gradcheck(
            lambda s, f=function, t=target: f(s.log_softmax(1), t, gamma, 0.25), logits
        )


def test_softmax_rows_stay_finite_where_the_prediction_is_certain():
    logits = torch.tensor([[1e3, 0.0], [0.0, 1e3]], requires_grad=True)
    for gamma in (0.5, 2.0):
        loss = focal.softmax_focal_rows(
            logits.log_softmax(1), torch.tensor([0, 0]), gamma
        )
        np.testing.assert_allclose(loss.detach(), [0.0, 1e3])
        assert np.isfinite(grad_of(loss.sum(), logits)).all()
