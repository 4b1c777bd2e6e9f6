import json

import numpy as np
import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS

from daal_mmdet.benchmark import ClassBalancedFocalLoss
from daal_mmdet.benchmark.class_balanced_focal_loss import class_balanced_weights
from tests import oracles

COUNTS = [500, 20, 3]


def case(N=7, seed=0):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(2 * rng.normal(size=(N, 3))).requires_grad_()
    labels = torch.from_numpy(np.arange(N) % 4)
    return logits, labels, torch.from_numpy(rng.uniform(size=N))


@pytest.mark.parametrize('beta', [0.0, 0.9, 0.9999])
def test_weights_are_inverse_effective_numbers(beta):
    got = class_balanced_weights([*COUNTS, 0], beta)
    expected = oracles.class_balanced_weights([*COUNTS, 0], beta)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert got.sum().item() == pytest.approx(4, rel=1e-6)


def test_loss_and_gradient_are_weighted_rows_of_the_focal_loss():
    logits, labels, weight = case()
    loss_cls = MODELS.build(
        dict(type='ClassBalancedFocalLoss', samples_per_class=COUNTS, loss_weight=3.0)
    )
    loss, grad = oracles.sigmoid_focal(logits.detach(), labels, 2.0, 0.25)
    rows = np.append(oracles.class_balanced_weights(COUNTS, 0.9999), 1)[labels]
    rows = rows * weight.numpy() * 3 / 5
    value = loss_cls(logits, labels, weight, avg_factor=5)
    assert value.item() == pytest.approx((loss.sum(1) * rows).sum(), rel=1e-6)
    (got,) = torch.autograd.grad(value, logits)
    np.testing.assert_allclose(got, grad * rows[:, None], rtol=1e-5, atol=1e-9)
    every = weight[:, None].expand(-1, 3)
    assert loss_cls(logits, labels, every, avg_factor=5).item() == pytest.approx(
        value.item()
    )


def test_equal_counts_give_the_focal_loss():
    logits, labels, _ = case()
    loss_cls = ClassBalancedFocalLoss([40, 40, 40])
    torch.testing.assert_close(loss_cls(logits, labels), FocalLoss()(logits, labels))


def test_no_rows_give_zero():
    loss_cls = ClassBalancedFocalLoss(COUNTS)
    empty = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    assert loss_cls(*empty, avg_factor=1).item() == 0


def test_counts_come_from_the_training_annotations(tmp_path):
    names = ['frequent', 'rare']
    boxes = [0] * 6 + [1] * 2
    document = {
        'images': [{'id': 0}],
        'categories': [{'id': i, 'name': name} for i, name in enumerate(names)],
        'annotations': [{'image_id': 0, 'category_id': c} for c in boxes],
    }
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(document))
    swapped = ClassBalancedFocalLoss(
        train_ann_file=str(path), classes=['rare', 'frequent']
    )
    torch.testing.assert_close(
        swapped.class_weights, class_balanced_weights([2, 6]), rtol=0, atol=0
    )
    assert not swapped.state_dict()
    with pytest.raises(ValueError, match=r"has \['frequent', 'rare'\], not \['cat'\]"):
        ClassBalancedFocalLoss(train_ann_file=str(path), classes=['cat'])


def test_errors_name_the_key():
    with pytest.raises(ValueError, match='beta: expected a value >= 0 and < 1, got 1'):
        class_balanced_weights(COUNTS, 1.0)
    with pytest.raises(ValueError, match='samples_per_class: expected a value >= 0'):
        class_balanced_weights([-1])
    with pytest.raises(ValueError, match='at least one class, got none'):
        class_balanced_weights([])
    with pytest.raises(ValueError, match='samples_per_class or train_ann_file'):
        ClassBalancedFocalLoss()
    with pytest.raises(ValueError, match=r'predictions \(N, 3\) .* got \(2, 4\)'):
        ClassBalancedFocalLoss(COUNTS)(torch.zeros(2, 4), torch.zeros(2).long())
