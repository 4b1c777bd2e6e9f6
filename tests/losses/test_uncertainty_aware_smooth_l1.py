import numpy as np
import pytest
import torch
from mmdet.models.losses import L1Loss, SmoothL1Loss
from mmdet.registry import MODELS

from daal_mmdet.losses.covariance_weighting import RowWeights
from daal_mmdet.losses.uncertainty_aware_smooth_l1 import (
    UncertaintyAwareSmoothL1,
    uncertainty_aware_smooth_l1,
)
from tests.oracles import smooth_l1

pytestmark = pytest.mark.filterwarnings('ignore:UncertaintyAwareSmoothL1. nothing')


def example(rows=7, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(rows, 4, generator=generator).to(dtype).requires_grad_()
    target = torch.randn(rows, 4, generator=generator).to(dtype)
    weight = torch.rand(rows, 4, generator=generator).to(dtype)
    return pred, target, weight


class Tracker:
    """Gives fixed weights and keeps what it gets."""

    def __init__(self, rows, weights):
        self.call = RowWeights(rows, weights)
        self.residuals = []

    def next_call(self, num_rows):
        return self.call

    def measure(self, residuals):
        self.residuals.append(residuals)


@pytest.mark.parametrize('beta', [0.0, 0.11, 1.0])
@pytest.mark.parametrize(
    ('reduction', 'avg_factor'),
    [('none', None), ('none', 5.0), ('mean', None), ('mean', 5.0), ('sum', None)],
)
@pytest.mark.parametrize('weighted', [True, False])
def test_without_a_hook_it_is_the_loss_of_mmdet(beta, reduction, avg_factor, weighted):
    peer = SmoothL1Loss(beta, loss_weight=2.0) if beta else L1Loss(loss_weight=2.0)
    ours = UncertaintyAwareSmoothL1(beta=beta, loss_weight=2.0)
    losses, gradients = [], []
    for loss in (peer, ours):
        pred, target, weight = example()
        value = loss(pred, target, weight if weighted else None, avg_factor, reduction)
        value.sum().backward()
        losses.append(value)
        gradients.append(pred.grad)
    assert torch.equal(*losses)
    assert torch.equal(*gradients)


@pytest.mark.parametrize('beta', [0.0, 0.5])
@pytest.mark.parametrize('rows', [None, [1, 2, 5]])
@pytest.mark.parametrize(
    ('reduction', 'avg_factor'),
    [('none', None), ('none', 3.0), ('mean', None), ('mean', 3.0), ('sum', None)],
)
def test_weighted_rows_against_the_oracle(beta, rows, reduction, avg_factor):
    pred, target, weight = example()
    index = list(range(7)) if rows is None else rows
    outside = [i for i in range(7) if i not in index]
    weight[outside] = 0
    scale = torch.rand(len(index)) * 5
    tracker = Tracker(None if rows is None else torch.tensor(rows), scale)
    loss = UncertaintyAwareSmoothL1(beta=beta, reduction=reduction, loss_weight=0.5)
    loss.tracker = tracker
    value = loss(pred, target, weight, avg_factor)

    elements, slopes = smooth_l1(pred.detach().numpy(), target.numpy(), beta)
    factor = weight.double().numpy()
    factor[index] *= scale.double().numpy()[:, None]
    divisor = {'none': 1, 'sum': 1, 'mean': avg_factor or 28}[reduction]
    expected = 0.5 * elements * factor / divisor
    gradient = 0.5 * slopes * factor / divisor
    if reduction != 'none':
        expected = expected.sum()
    np.testing.assert_allclose(value.detach(), expected, rtol=1e-5)
    value.sum().backward()
    np.testing.assert_allclose(pred.grad, gradient, rtol=1e-5, atol=1e-7)
    (residuals,) = tracker.residuals
    assert not residuals.requires_grad
    torch.testing.assert_close(residuals, (target - pred).detach()[index])


def test_gradcheck():
    pred, target, weight = example(dtype=torch.float64)
    weight[[0, 3]] = 0
    rows = torch.tensor([1, 2, 4, 5, 6])
    call = RowWeights(rows, torch.rand(5, dtype=torch.float64))
    for avg_factor in (None, 3.0):

        def loss(pred, avg_factor=avg_factor):
            return uncertainty_aware_smooth_l1(
                pred, target, call, weight, beta=0.3, avg_factor=avg_factor
            )

        assert torch.autograd.gradcheck(loss, pred)


@pytest.mark.parametrize('avg_factor', [None, 4.0])
@pytest.mark.parametrize('size', [0, 5])
def test_no_positives_give_zero_with_a_gradient(size, avg_factor):
    pred, target, weight = example(rows=size)
    loss = UncertaintyAwareSmoothL1()
    loss.tracker = Tracker(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    value = loss(pred, target, weight * 0, avg_factor)
    assert value == 0
    value.backward()
    assert torch.equal(pred.grad, torch.zeros(size, 4))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_measures_in_single(dtype):
    pred, target, weight = example(dtype=dtype)
    loss = UncertaintyAwareSmoothL1()
    loss.tracker = Tracker(None, torch.ones(7))
    value = loss(pred, target, weight, 7.0)
    assert value.isfinite()
    assert loss.tracker.residuals[0].dtype == torch.float32


def test_weights_of_rows_without_columns():
    pred, target, _ = example()
    loss = UncertaintyAwareSmoothL1(beta=0, reduction='none')
    plain = loss(pred, target, torch.arange(7.0))
    loss.tracker = Tracker(None, torch.full((7,), 2.0))
    torch.testing.assert_close(loss(pred, target, torch.arange(7.0)), 2 * plain)


def test_it_drops_in_over_either_config():
    for keys in (
        dict(beta=1.0 / 9.0, loss_weight=1.0, reduction='sum'),
        dict(loss_weight=5.0, reduction='mean'),
    ):
        loss = MODELS.build(dict(type='UncertaintyAwareSmoothL1', **keys))
        assert loss.loss_weight == keys['loss_weight']
        assert loss.reduction == keys['reduction']


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(beta=-1.0), r'beta: expected a value >= 0, got -1.0'),
        (dict(reduction='avg'), r"reduction: expected one of .*'sum'\), got 'avg'"),
        (dict(loss_weight=float('nan')), 'loss_weight: expected a finite number'),
    ],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        UncertaintyAwareSmoothL1(**options)


def test_a_bad_override_is_named():
    pred, target, _ = example()
    with pytest.raises(ValueError, match="reduction_override: .* got 'max'"):
        UncertaintyAwareSmoothL1()(pred, target, reduction_override='max')


def test_dynamic_rcnn_changes_its_beta(shipped_config):
    model = shipped_config('dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py').model
    model.roi_head.bbox_head.loss_bbox.type = 'UncertaintyAwareSmoothL1'
    roi_head = MODELS.build(model).roi_head
    loss = roi_head.bbox_head.loss_bbox
    assert isinstance(loss, UncertaintyAwareSmoothL1)
    roi_head.iou_history, roi_head.beta_history = [0.4, 0.5], [0.2, 0.4]
    roi_head.update_hyperparameters()
    assert loss.beta == pytest.approx(0.3)
    pred, target, weight = example()
    value = loss(pred, target, weight)
    assert torch.equal(value, SmoothL1Loss(beta=0.3)(pred, target, weight))
