import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from daal_mmdet.losses.covariance_weighting import RowWeights
from daal_mmdet.losses.uncertainty_aware_loss import UncertaintyAwareLoss, box_residual
from tests.losses.test_uncertainty_aware_smooth_l1 import Tracker

pytestmark = pytest.mark.filterwarnings('ignore:UncertaintyAwareLoss. nothing')

BOX_LOSSES = [
    'IoULoss',
    'GIoULoss',
    'DIoULoss',
    'CIoULoss',
    'EIoULoss',
    'BoundedIoULoss',
]


def boxes(rows=6, seed=0):
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 40, (rows, 2)), rng.uniform(5, 40, (rows, 2))
    target = np.concatenate([corner, corner + size], axis=1)
    pred = target + rng.uniform(-2, 2, (rows, 4))
    return torch.from_numpy(pred).requires_grad_(), torch.from_numpy(target)


@pytest.mark.parametrize('name', BOX_LOSSES)
@pytest.mark.parametrize('weight_dims', [None, 1, 2])
def test_rows_are_weighted_in_every_box_loss(name, weight_dims):
    pred, target = boxes()
    inner = dict(type=name, loss_weight=2.0)
    loss = UncertaintyAwareLoss(inner)
    scale = torch.rand(6, dtype=torch.float64)
    loss.tracker = Tracker(None, scale)
    weight = None if weight_dims is None else torch.rand([6, 4][:weight_dims]).double()
    value = loss(pred, target, weight, avg_factor=4.0)

    rows = MODELS.build(inner)(pred, target, reduction_override='none')
    if rows.dim() == 1 and weight_dims == 2:
        rows = rows * weight.mean(dim=1)
    elif weight_dims is not None:
        rows = rows * (weight if rows.dim() == weight_dims else weight[:, None])
    expected = (rows * (scale if rows.dim() == 1 else scale[:, None])).sum() / 4
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, pred), torch.autograd.grad(expected, pred)
    )
    torch.testing.assert_close(loss.tracker.residuals[0], box_residual(pred, target))


@pytest.mark.parametrize('name', ['GIoULoss', 'BoundedIoULoss'])
def test_boxes_in_half_precision_are_measured_in_single(name):
    """The area of a box of 300 pixels is more than float16 holds."""
    pred = torch.tensor([[0.0, 0.0, 300.0, 400.0]], dtype=torch.float16)
    target = torch.tensor([[10.0, 0.0, 330.0, 400.0]])
    pred.requires_grad_()
    loss = UncertaintyAwareLoss(dict(type=name))
    with torch.autocast('cpu', dtype=torch.float16):
        value = loss(pred, target)
    torch.testing.assert_close(
        value, MODELS.build(dict(type=name))(pred.float(), target)
    )
    value.backward()
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize('avg_factor', [None, 3.0])
@pytest.mark.parametrize('name', ['GIoULoss', 'BalancedL1Loss', 'MSELoss'])
def test_positives_among_other_rows(name, avg_factor):
    pred, target = boxes()
    rows = torch.tensor([0, 2, 5])
    weight = torch.zeros(6, 4, dtype=torch.float64)
    weight[rows] = torch.tensor([[0.5], [1.0], [3.0]], dtype=torch.float64)
    loss = UncertaintyAwareLoss(dict(type=name))
    plain = loss(pred, target, weight, avg_factor)
    loss.tracker = Tracker(rows, torch.full((3,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(loss(pred, target, weight, avg_factor), 2 * plain)
    assert loss.tracker.residuals[0].shape == (3, 4)
    assert len(loss(pred, target, weight, avg_factor, reduction_override='none')) == 6


def test_without_a_hook_it_is_the_inner_loss():
    pred, target = boxes()
    inner = dict(type='GIoULoss', loss_weight=3.0, reduction='sum')
    loss = UncertaintyAwareLoss(inner)
    assert torch.equal(loss(pred, target), MODELS.build(inner)(pred, target))
    assert (loss.loss_weight, loss.reduction) == (3.0, 'sum')


def test_no_rows():
    pred, target = boxes(rows=0)
    loss = UncertaintyAwareLoss(dict(type='GIoULoss'))
    loss.tracker = Tracker(None, torch.zeros(0))
    value = loss(pred, target, torch.zeros(0, 4), avg_factor=1.0)
    assert value == 0
    value.backward()


def test_box_residuals_by_hand_and_free_of_scale():
    target = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    pred = torch.tensor([[12.0, 20.0, 22.0, 40.0]])
    expected = torch.tensor([[3 / 20, 10 / 40, np.log(2), np.log(2)]]).float()
    torch.testing.assert_close(box_residual(pred, target), expected)
    torch.testing.assert_close(box_residual(pred / 8, target / 8), expected)
    # Degenerate boxes stay finite.
    for bad in (torch.zeros(1, 4), pred[:, [2, 3, 0, 1]]):
        assert box_residual(bad, target).isfinite().all()
    assert box_residual(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_what_the_filter_measures_follows_the_loss():
    assert UncertaintyAwareLoss(dict(type='CIoULoss')).residual == 'box'
    assert UncertaintyAwareLoss(dict(type='L1Loss')).residual == 'difference'
    with pytest.raises(ValueError, match="'auto' doesn't know what GHMR compares"):
        UncertaintyAwareLoss(dict(type='GHMR'))
    named = UncertaintyAwareLoss(dict(type='GHMR'), residual='difference')
    assert named.residual == 'difference'


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(loss='GIoULoss'), TypeError, "loss: expected a config .* got 'GIoULoss'"),
        (dict(loss=dict()), TypeError, 'loss: expected a config like'),
        (
            dict(loss=dict(type='L1Loss'), residual='iou'),
            ValueError,
            r"residual: .*\('auto', 'box', 'difference'\), got 'iou'",
        ),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        UncertaintyAwareLoss(**options)


def test_row_weights_are_merged_by_rows():
    call = RowWeights(torch.tensor([1]), torch.tensor([3.0]))
    loss = UncertaintyAwareLoss(dict(type='L1Loss', reduction='none'))
    loss.tracker = Tracker(*call)
    value = loss(torch.zeros(2, 4), torch.ones(2, 4))
    assert value.tolist() == [[1.0] * 4, [3.0] * 4]
