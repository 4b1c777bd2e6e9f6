import copy
import itertools

import numpy as np
import pytest
import torch
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, QualityFocalLoss
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage

from daal_mmdet.losses import DAALFocalLoss, DAALLoss
from daal_mmdet.losses.bnm_loss import batch_nuclear_norm_loss
from daal_mmdet.losses.targets import parse_targets
from tests import oracles

N, C = 60, 5
OFF = {'bnm_weight': 0, 'class_balance': None}


def rows(columns=C, seed=0, num_rows=N):
    generator = torch.Generator().manual_seed(seed)
    pred = 2 * torch.randn(num_rows, columns, generator=generator)
    labels = torch.randint(0, C + 1, (num_rows,), generator=generator)
    weight = torch.rand(num_rows, generator=generator)
    return pred, labels, weight


def value_and_grad(loss, pred, *args, **kwargs):
    pred = pred.clone().requires_grad_()
    value = loss(pred, *args, **kwargs)
    (grad,) = torch.autograd.grad(value.sum(), pred)
    return value.detach(), grad


def assert_same(ours, theirs, pred, *args, **kwargs):
    value, grad = value_and_grad(ours, pred, *args, **kwargs)
    want, want_grad = value_and_grad(theirs, pred, *args, **kwargs)
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(grad, want_grad, rtol=1e-5, atol=1e-7)


def set_iteration(k):
    MessageHub.get_current_instance().update_info('iter', k)


def scalar(name):
    return MessageHub.get_current_instance().get_scalar(f'train/daal_{name}').current()


def state(loss):
    return {name: buffer.clone() for name, buffer in loss.state_dict().items()}


# --- which rows are samples -----------------------------------------------------------
def test_soft_rows_that_are_mostly_background_are_no_foreground():
    pred = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    soft = torch.tensor(
        [[0.9, 0, 0, 0.1], [0, 0.6, 0, 0.4], [0, 0, 0.3, 0.7], [0, 0, 0, 1.0]]
    )
    loss = DAALLoss(bnm_weight=1.0, bnm_adaptive=False, class_balance=None)
    without = DAALLoss(**OFF)(pred, soft)
    want = batch_nuclear_norm_loss(pred[:2, :3])
    torch.testing.assert_close(loss(pred, soft) - without, want)


def test_rows_of_which_some_entries_weigh_are_samples():
    labels = torch.tensor([0, 1, 1, 3])
    weight = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    targets = parse_targets(torch.zeros(4, 3), labels, weight, 3)
    assert targets.class_counts().tolist() == [1, 1, 0]


# --- off, it is the loss it replaces --------------------------------------------------
@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_an_average_over_nothing_is_zero(use_sigmoid):
    pred = torch.randn(3, C + (not use_sigmoid))
    labels = torch.full((3,), C)
    loss = DAALLoss(use_sigmoid, **OFF)
    value, grad = value_and_grad(loss, pred, labels, torch.zeros(3), avg_factor=0.0)
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize('gamma', [0.0, 2.0, 1.5])
@pytest.mark.parametrize(
    'call', [{}, {'avg_factor': 13.0}, {'reduction_override': 'sum'}]
)
@pytest.mark.parametrize('weighted', [False, True, 'entry', 'flat'])
def test_off_it_is_mmdets_focal_loss(gamma, call, weighted):
    pred, labels, weight = rows()
    weight = {
        False: None,
        True: weight,
        'entry': weight[:, None] * torch.rand(N, C),
        'flat': torch.rand(N * C),
    }[weighted]
    ours = DAALFocalLoss(gamma=gamma, alpha=0.4, loss_weight=1.7, **OFF)
    theirs = FocalLoss(gamma=gamma, alpha=0.4, loss_weight=1.7)
    assert_same(ours, theirs, pred, labels, weight, **call)


def test_off_it_is_mmdets_focal_loss_by_element():
    pred, labels, weight = rows()
    ours, theirs = DAALFocalLoss(**OFF), FocalLoss()
    assert_same(ours, theirs, pred, labels, weight, reduction_override='none')
    assert_same(
        DAALFocalLoss(reduction='none', **OFF),
        FocalLoss(reduction='none'),
        pred,
        labels,
    )


@pytest.mark.parametrize('call', [{}, {'avg_factor': 13.0}])
def test_off_it_is_mmdets_focal_loss_of_one_hot_and_activated_input(call):
    pred, labels, weight = rows()
    one_hot = torch.eye(C + 1)[labels][:, :C]
    assert_same(DAALFocalLoss(**OFF), FocalLoss(), pred, one_hot, weight, **call)
    assert_same(DAALFocalLoss(**OFF), FocalLoss(), pred, one_hot.long(), **call)
    ours = DAALFocalLoss(activated=True, **OFF)
    theirs = FocalLoss(activated=True)
    for target in (labels, one_hot):
        assert_same(ours, theirs, pred.sigmoid(), target, weight, **call)


@pytest.mark.parametrize('sigmoid', [True, False])
def test_saturated_probabilities_in_half_precision_have_a_gradient(sigmoid):
    """That by a probability of 0 is 1e12, which times a slope of 0 was NaN."""
    columns = C if sigmoid else C + 1
    logits = torch.full((C + 1, columns), -30.0)
    logits[torch.arange(C), torch.arange(C)] = 30.0
    logits = logits.half().requires_grad_()
    pred = logits.sigmoid() if sigmoid else logits.softmax(1).half()
    loss = DAALLoss(use_sigmoid=sigmoid, activated=True, num_classes=C, bnm_weight=0.05)
    value = loss(pred, torch.arange(C + 1).roll(1))
    assert value.isfinite()
    value.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('quality', [None, 0.8])
def test_probabilities_that_half_precision_rounds_to_1_cost_what_they_should(
    dtype, quality
):
    """In bfloat16 all from 0.998 on are 1, whose logarithm PyTorch ends at -100."""
    exact = torch.tensor([[8.0]]).sigmoid()
    target = torch.tensor([1 if quality is None else 0])
    if quality is not None:
        target = target, torch.tensor([quality])
    loss = DAALLoss(use_sigmoid=True, activated=True, **OFF)
    want = loss(exact, target)
    assert want > 0.05
    torch.testing.assert_close(loss(exact.to(dtype), target), want, rtol=0.25, atol=0)


@pytest.mark.parametrize('margin', [14.0, 20.0, 60.0])
def test_probabilities_of_a_softmax_that_is_surely_wrong_still_train(margin):
    logits = torch.tensor([[0.0, margin, -1.0]], dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0])
    want = CrossEntropyLoss()(logits, labels)
    got = DAALLoss(activated=True, **OFF)(logits.softmax(1).float(), labels)
    (slope,) = torch.autograd.grad(want, logits)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.autograd.grad(got, logits)[0], slope)


@pytest.mark.parametrize('activated', [False, True])
def test_off_it_is_mmdets_quality_focal_loss(activated):
    pred, labels, weight = rows()
    pred = pred.sigmoid() if activated else pred
    scores = torch.rand(N)
    ours = DAALLoss(use_sigmoid=True, beta=1.5, activated=activated, **OFF)
    theirs = QualityFocalLoss(beta=1.5, activated=activated)
    target = (labels, scores)
    assert_same(ours, theirs, pred, target, weight, avg_factor=7.0)
    assert_same(ours, theirs, pred, target, reduction_override='none')


@pytest.mark.parametrize('call', [{}, {'avg_factor': 13.0}])
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('class_weight', [None, [1.0, 2.0, 0.5, 3.0, 1.0, 0.1]])
def test_off_it_is_mmdets_cross_entropy(call, weighted, class_weight):
    pred, labels, weight = rows(C + 1)
    ours = DAALLoss(class_weight=class_weight, loss_weight=1.7, **OFF)
    theirs = CrossEntropyLoss(class_weight=class_weight, loss_weight=1.7)
    assert_same(ours, theirs, pred, labels, weight if weighted else None, **call)


@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('use_sigmoid', [False, True])
@pytest.mark.filterwarnings('ignore:Default ``avg_non_ignore``')
def test_off_it_is_mmdets_cross_entropy_with_ignored_rows(avg_non_ignore, use_sigmoid):
    pred, labels, weight = rows(C if use_sigmoid else C + 1)
    labels[::7] = 255
    options = {
        'use_sigmoid': use_sigmoid,
        'ignore_index': 255,
        'avg_non_ignore': avg_non_ignore,
    }
    ours = DAALLoss(gamma=0, alpha=None, **options, **OFF)
    assert_same(ours, CrossEntropyLoss(**options), pred, labels, weight)
    assert_same(ours, CrossEntropyLoss(**options), pred, labels)


def test_off_it_is_mmdets_binary_cross_entropy_of_soft_targets():
    pred, _, _ = rows()
    soft = torch.rand(N, C)
    ours = DAALLoss(True, gamma=0, alpha=None, class_weight=[1, 2, 3, 4, 5], **OFF)
    theirs = CrossEntropyLoss(True, class_weight=[1, 2, 3, 4, 5])
    assert_same(ours, theirs, pred, soft, torch.rand(N, C))


def test_background_weight_is_the_last_class_weight():
    pred, labels, weight = rows(C + 1)
    ours = DAALLoss(bg_cls_weight=0.1, **OFF)
    theirs = CrossEntropyLoss(class_weight=[1.0] * C + [0.1])
    assert_same(ours, theirs, pred, labels, weight)
    both = DAALLoss(bg_cls_weight=0.1, class_weight=torch.full((C + 1,), 2.0), **OFF)
    theirs = CrossEntropyLoss(class_weight=[2.0] * C + [0.2])
    assert_same(both, theirs, pred, labels, weight)


def test_softmax_targets_may_be_soft_and_leave_out_the_background():
    pred, _, _ = rows(C + 1)
    soft = torch.rand(N, C + 1).softmax(1)
    ours = DAALLoss(gamma=2.0, alpha=0.25, **OFF)
    want = oracles.softmax_focal(pred, soft.double().numpy(), 2.0, 0.25).mean()
    assert ours(pred, soft).item() == pytest.approx(want, rel=1e-5)
    assert ours(pred, soft[:, :C]).item() == pytest.approx(want, rel=1e-5)
    activated = DAALLoss(gamma=2.0, alpha=0.25, activated=True, **OFF)
    assert activated(pred.softmax(1), soft).item() == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize('use_sigmoid', [True, False])
@pytest.mark.parametrize('reduction', ['sum', 'none'])
def test_gamma_may_differ_between_classes(use_sigmoid, reduction):
    columns = C if use_sigmoid else C + 1
    pred, labels, weight = rows(columns)
    gamma = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0][:columns]
    ours = DAALLoss(use_sigmoid, gamma=gamma, alpha=0.25, **OFF)
    value = ours(pred, labels, weight, reduction_override=reduction).sum()
    if use_sigmoid:
        want = oracles.sigmoid_focal(pred, labels, gamma, 0.25)[0].sum(axis=1)
    else:
        want = oracles.softmax_focal(pred, np.eye(C + 1)[labels], gamma, 0.25)
    assert value.item() == pytest.approx((want * weight.numpy()).sum(), rel=1e-5)
    assert 'gamma' not in ' '.join(ours.state_dict())


def test_beta_may_differ_between_classes():
    pred, labels, weight = rows()
    scores, beta = torch.rand(N), [0.0, 0.5, 1.0, 2.0, 3.0]
    ours = DAALLoss(True, beta=beta, reduction='sum', **OFF)
    want = oracles.quality_focal(pred, labels, scores.double(), beta).sum(axis=1)
    value = ours(pred, (labels, scores), weight)
    assert value.item() == pytest.approx((want * weight.numpy()).sum(), rel=1e-5)


def test_targets_and_weights_that_are_learned_get_their_gradient():
    pred, labels, weight = rows()
    soft = torch.rand(N, C)
    for target, w in (
        ((labels, soft[:, 0].clone().requires_grad_()), weight),
        (soft.clone().requires_grad_(), weight),
        (labels, weight.clone().requires_grad_()),
    ):
        leaf = pred.clone().requires_grad_()
        loss = DAALFocalLoss(**OFF)
        loss(leaf, target, w, avg_factor=10.0).backward()
        learned, plain = target, pred.clone().requires_grad_()
        constant = target.detach() if isinstance(target, torch.Tensor) else None
        if constant is None:
            learned, constant = target[1], (labels, target[1].detach())
        elif w.requires_grad:
            learned = w
        assert learned.grad.abs().sum() > 0
        # And the logits the one they get from constants.
        loss(plain, constant, w.detach(), avg_factor=10.0).backward()
        torch.testing.assert_close(leaf.grad, plain.grad)


def test_leading_dimensions_are_rows():
    pred, labels, weight = rows()
    ours = DAALFocalLoss(**OFF)
    flat = ours(pred, labels, weight, reduction_override='none')
    shaped = ours(
        pred.reshape(3, 20, C),
        labels.reshape(3, 20),
        weight.reshape(3, 20, 1),
        reduction_override='none',
    )
    assert torch.equal(shaped, flat.reshape(3, 20, C))
    one_hot = torch.eye(C + 1)[labels][:, :C]
    soft = ours(pred.reshape(3, 20, C), one_hot.reshape(3, 20, C))
    torch.testing.assert_close(soft, ours(pred, labels))
    # Targets and weights may come flat.
    torch.testing.assert_close(
        ours(pred.reshape(3, 20, C), labels, weight), ours(pred, labels, weight)
    )


@pytest.mark.parametrize(
    ('target', 'weight', 'message'),
    [
        ((20, 3), (3, 20), r'target: .* begins with \(3, 20\), .*, got \(20, 3\)'),
        ((3, 20), (20, 3), r'weight: .* begins with \(3, 20\), .*, got \(20, 3\)'),
    ],
)
def test_leading_dimensions_in_another_order_are_an_error(target, weight, message):
    pred, labels, _ = rows()
    with pytest.raises(ValueError, match=message):
        DAALFocalLoss()(
            pred.reshape(3, 20, C), labels.reshape(target), torch.ones(weight)
        )
    scores = torch.ones(20, 3)
    with pytest.raises(ValueError, match=r'target\[1\]: .* begins with \(3, 20\)'):
        DAALFocalLoss()(pred.reshape(3, 20, C), (labels.reshape(3, 20), scores))


# --- the composition ------------------------------------------------------------------
@pytest.mark.parametrize('use_sigmoid', [False, True])
@pytest.mark.parametrize('bnm_weight', [1.0, 0.05])
def test_fixed_schemes_add_the_nuclear_norm_of_the_foreground(use_sigmoid, bnm_weight):
    pred, labels, _ = rows(C if use_sigmoid else C + 1)
    options = {'use_sigmoid': use_sigmoid, 'class_balance': None}
    ours = DAALLoss(bnm_weight=bnm_weight, bnm_adaptive=False, **options)
    task = DAALLoss(bnm_weight=0, **options)(pred, labels)
    bnm = oracles.batch_nuclear_norm_loss(pred[labels < C][:, :C], 'bound')
    want = task.item() + bnm_weight * bnm
    assert ours(pred, labels).item() == pytest.approx(want, rel=1e-5)


def test_by_default_the_class_weights_are_all_that_adapts():
    default = DAALFocalLoss()
    options = {'bnm_weight': 0.0, 'confusion_weight': 0.1}
    named = DAALFocalLoss(class_balance={'max_weight': 3.0}, **options)
    assert default.proportion is None
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 60 + [1, 2] + [C] * 8)
    for _ in range(3):
        pred = torch.randn(len(labels), C, generator=generator)
        assert torch.equal(default(pred, labels), named(pred, labels))
    assert default.class_balance(C).max() == 3


def test_adaptive_scheme_follows_the_filters_step_by_step():
    loss = DAALFocalLoss(loss_weight=1.3, bnm_weight=0.05)
    classes = oracles.ClassShareFilter(C)
    weight, tasks, proportion = np.ones(C), [], 0.0
    for k in range(12):
        pred, labels, _ = rows(seed=k)
        elements, _ = oracles.sigmoid_focal(pred, labels, 2.0, 0.25, weight)
        objects = labels < C
        one_hot = np.eye(C)[labels[objects]]
        confusion = oracles.confusion(pred[objects], one_hot, weight)
        task = elements.mean() + 0.1 * confusion / (N * C)
        bnm = oracles.batch_nuclear_norm_loss(pred[labels < C], 'bound')
        value = loss(pred.requires_grad_(), labels)
        want = 1.3 * (task + 0.05 * proportion * bnm)
        assert value.item() == pytest.approx(want, rel=1e-4)
        value.backward()
        # The next call sees what this one taught.
        classes.observe(np.bincount(labels, minlength=C + 1)[:C])
        weight = classes.weights()
        tasks.append(task)
        gains, proportions = oracles.proportion_filter(tasks)
        proportion = proportions[-1]
        assert scalar('lambda') == pytest.approx(0.05 * proportion, rel=1e-3)
        assert scalar('gain') == pytest.approx(gains[-1], rel=1e-3)
        assert scalar('task') == pytest.approx(task, rel=1e-4)
        assert scalar('bnm') == pytest.approx(bnm, rel=1e-4)
        assert scalar('min_weight') == pytest.approx(weight.min(), rel=1e-4)
        assert scalar('max_weight') == pytest.approx(weight.max(), rel=1e-4)


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_gradient_of_everything_together(use_sigmoid):
    pred, labels, weight = rows(C if use_sigmoid else C + 1, num_rows=8)
    loss = DAALLoss(use_sigmoid, bnm_weight=0.5, bnm_adaptive=False).double()
    for k in range(3):
        loss(rows(pred.shape[1], seed=k)[0].double().requires_grad_(), rows(seed=k)[1])
    loss.eval()
    assert torch.autograd.gradcheck(
        lambda s: loss(s, labels, weight.double(), avg_factor=3.0),
        pred.double().requires_grad_(),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ('form', 'weighted'),
    [
        *itertools.product(['labels', 'one-hot', 'soft'], [None, 'row', 'entry']),
        *itertools.product(['quality'], [None, 'row']),
    ],
)
@pytest.mark.parametrize(
    'call', [{}, {'avg_factor': 7.0}, {'reduction_override': 'sum'}]
)
@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('class_weight', [None, [0.0, 3.0, 1.0, 0.5, 2.0]])
def test_confusion_term_of_every_form_of_target(
    form, weighted, call, activated, class_weight
):
    pred, labels, weight = rows()
    labels[3] = -100
    weight[4] = 0
    one_hot = torch.eye(C + 1)[labels.clamp(min=0)][:, :C]
    one_hot[labels < 0] = 0
    scores = torch.rand(N)
    target = {
        'labels': labels,
        'one-hot': one_hot,
        'soft': one_hot * scores[:, None],
        'quality': (labels, scores),
    }[form]
    shares = one_hot if form in ('labels', 'one-hot') else one_hot * scores[:, None]
    weight = {None: None, 'row': weight, 'entry': torch.rand(N, C)}[weighted]
    if weight is not None:
        shares = shares * (weight if weight.dim() > 1 else weight[:, None])
    options = {'num_classes': C, 'activated': activated, 'class_weight': class_weight}
    ours, plain = (
        DAALFocalLoss(confusion_weight=v, **options).eval() for v in (0.3, 0.0)
    )
    balance = torch.arange(1.0, C + 1)
    for loss in (ours, plain):
        loss.class_balance.measured_classes.fill_(C)
        loss.class_balance.weight.copy_(balance)
    given = pred.sigmoid() if activated else pred
    got = ours(given, target, weight, **call) - plain(given, target, weight, **call)
    divisor = N if form == 'quality' else N * C
    divisor = {'avg_factor': 7.0, 'reduction_override': 1.0}.get(*call or [''], divisor)
    if class_weight is not None:
        balance = balance * torch.tensor(class_weight)
    want = 0.3 * oracles.confusion(pred, shares, balance) / divisor
    assert got.item() == pytest.approx(want, rel=1e-4)


def test_confusion_term_of_thinned_out_rows_stands_for_all():
    pred, labels, _ = rows()
    pred[:], labels[:] = pred[0], 1
    values = [
        DAALFocalLoss(confusion_weight=0.3, bnm_max_rows=cap)(pred, labels).item()
        for cap in (4, N)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_confusion_term_belongs_to_a_mean_or_sum():
    pred, labels, _ = rows()
    call = {'reduction_override': 'none'}
    ours = DAALFocalLoss()(pred, labels, **call)
    without = DAALFocalLoss(confusion_weight=0)(pred, labels, **call)
    assert torch.equal(ours, without)


def test_classes_are_compared_by_default_where_sigmoids_are_balanced():
    for options, want in (
        ({}, 0.1),
        ({'class_balance': None}, 0),
        ({'use_sigmoid': False}, 0),
        ({'class_balance': None, 'confusion_weight': 0.3}, 0.3),
    ):
        assert DAALFocalLoss(**options).confusion_weight == want


def test_class_weights_act_on_the_positive_term_alone():
    pred, labels, _ = rows()
    for soft in (False, True):
        target = torch.eye(C + 1)[labels][:, :C] if soft else labels
        loss = DAALFocalLoss(bnm_weight=0, num_classes=C)
        loss.class_balance.measured_classes.fill_(C)
        loss.class_balance.weight.copy_(torch.arange(1.0, C + 1))
        loss.eval()
        ours = loss(pred, target, reduction_override='none')
        plain = FocalLoss()(pred, labels, reduction_override='none')
        factor = torch.ones(N, C + 1).scatter(
            1, labels[:, None], torch.arange(1.0, C + 2)[labels][:, None]
        )[:, :C]
        torch.testing.assert_close(ours, plain * factor)


def test_class_weights_scale_softmax_rows_but_not_the_background():
    pred, labels, _ = rows(C + 1)
    loss = DAALLoss(bnm_weight=0, num_classes=C)
    loss.class_balance.measured_classes.fill_(C)
    loss.class_balance.weight.copy_(torch.arange(1.0, C + 1))
    want = CrossEntropyLoss(class_weight=[1.0, 2.0, 3.0, 4.0, 5.0, 1.0])
    assert_same(loss.eval(), want, pred, labels)


# --- iterations -----------------------------------------------------------------------
def test_calls_of_one_iteration_are_one_measurement():
    parts = DAALFocalLoss(bnm_weight=0.05)
    whole = DAALFocalLoss(bnm_weight=0.05)
    for k in range(4):
        set_iteration(k)
        for level in range(3):
            pred, labels, _ = rows(seed=10 * k + level)
            parts(pred.requires_grad_(), labels, avg_factor=20.0)
        preds, labels = zip(*[rows(seed=10 * k + j)[:2] for j in range(3)], strict=True)
        whole(torch.cat(preds).requires_grad_(), torch.cat(labels), avg_factor=20.0)
    assert parts.class_balance.num_measurements == 3
    assert parts.proportion.num_measurements == 3
    torch.testing.assert_close(parts.class_balance.share, whole.class_balance.share)
    torch.testing.assert_close(parts.proportion.mean, whole.proportion.mean)
    torch.testing.assert_close(parts.proportion.gain, whole.proportion.gain)


def test_nuclear_norm_of_an_iteration_is_the_mean_over_its_calls():
    loss = DAALFocalLoss(bnm_weight=1.0, bnm_adaptive=False, class_balance=None)
    task = DAALFocalLoss(bnm_weight=0, class_balance=None)
    pred, labels, _ = rows()
    bnm = oracles.batch_nuclear_norm_loss(pred[labels < C], 'bound')
    for k, calls in enumerate((3, 2, 2)):
        set_iteration(k)
        # The number of calls is that of the iteration before, at first 1.
        divisor = (1, 3, 2)[k]
        for _ in range(calls):
            value = loss(pred.requires_grad_(), labels) - task(pred, labels)
            assert value.item() == pytest.approx(bnm / divisor, rel=1e-4)


def test_without_a_runner_each_call_is_an_iteration():
    loss = DAALFocalLoss(bnm_weight=0.05)
    for k in range(5):
        pred, labels, _ = rows(seed=k)
        loss(pred.requires_grad_(), labels)
    assert loss.class_balance.num_measurements == 5
    assert loss.proportion.num_measurements == 5


def test_only_training_calls_with_gradients_and_a_reduction_are_measured():
    loss = DAALFocalLoss(bnm_weight=0.05)
    pred, labels, _ = rows()
    before = state(loss)
    loss(pred.requires_grad_(), labels, reduction_override='none')
    with torch.no_grad():
        loss(pred, labels)
    loss.eval()(pred, labels)
    for name, buffer in loss.state_dict().items():
        assert torch.equal(buffer, before[name])


def test_calls_that_are_not_measured_end_no_iteration():
    loss = DAALFocalLoss(bnm_weight=0.05)
    run(loss, range(3))
    before = state(loss)
    set_iteration(3)
    pred, labels, _ = rows(seed=3)
    with torch.no_grad():
        loss(pred, labels)
    loss.eval()(pred.requires_grad_(), labels)
    loss.train()(pred, labels, reduction_override='none')
    assert_same_state(state(loss), before)
    loss(pred, labels)
    assert loss.class_balance.num_measurements == 3


def test_state_dict_continues_bit_for_bit_in_the_middle_of_an_iteration():
    loss = DAALFocalLoss(bnm_weight=0.05)

    def train(loss, iterations):
        values = []
        for k in iterations:
            set_iteration(k)
            for level in range(2):
                pred, labels, _ = rows(seed=10 * k + level)
                values.append(loss(pred.requires_grad_(), labels).item())
        return values

    train(loss, range(3))
    resumed = DAALFocalLoss(bnm_weight=0.05)
    resumed.load_state_dict(copy.deepcopy(loss.state_dict()))
    # Nothing is lost on the way to itself.
    loss.load_state_dict(loss.state_dict())
    assert train(resumed, range(3, 6)) == train(loss, range(3, 6))
    for name, buffer in loss.state_dict().items():
        assert torch.equal(buffer, resumed.state_dict()[name])


def run(loss, iterations, labels=None):
    for k in iterations:
        set_iteration(k)
        pred, drawn, weight = rows(seed=k)
        loss(pred.requires_grad_(), drawn if labels is None else labels, weight)


def assert_same_state(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert torch.equal(got[name], value), name


@pytest.mark.parametrize('options', [{}, {'bnm_weight': 0.05}])
def test_filters_start_anew_unless_a_training_resumes(options):
    earlier = DAALFocalLoss(**options)
    run(earlier, range(10), labels=torch.full((N,), 2))
    saved = state(earlier)
    fresh, loaded = DAALFocalLoss(**options), DAALFocalLoss(**options)
    # load_from leaves mmengine's counter at 0, a resume sets it.
    loaded.load_state_dict(saved)
    for loss in (fresh, loaded):
        run(loss, range(3))
    assert_same_state(state(loaded), state(fresh))

    resumed = DAALFocalLoss(**options)
    resumed.load_state_dict(saved)
    for loss in (earlier, resumed):
        run(loss, range(10, 13))
    assert_same_state(state(resumed), state(earlier))
    assert resumed.class_balance.num_measurements == 12


def test_a_loss_that_another_training_used_starts_anew_too():
    """As in a notebook, where two runners get the same model."""
    fresh = DAALFocalLoss()
    run(fresh, range(3))
    for loads in (False, True):
        used = DAALFocalLoss()
        run(used, range(10), labels=torch.full((N,), 2))
        if loads:
            used.load_state_dict(copy.deepcopy(used.state_dict()))
        run(used, range(3))
        assert_same_state(state(used), state(fresh))


def test_a_checkpoint_of_the_iteration_that_a_loss_is_in_is_taken():
    earlier = DAALFocalLoss()
    run(earlier, range(4))
    saved = state(earlier)
    run(earlier, [4])
    used = DAALFocalLoss()
    run(used, range(5), labels=torch.full((N,), 2))
    used.load_state_dict(saved)
    run(used, [4])
    assert_same_state(state(used), state(earlier))


def test_a_training_that_starts_anew_has_no_calls_behind_it():
    made = (DAALFocalLoss(bnm_weight=1.0, bnm_adaptive=False) for _ in range(3))
    earlier, loss, fresh = made
    for k in range(2):
        for _ in range(3):
            run(earlier, [k])
    assert earlier.calls_per_iteration == 3
    loss.load_state_dict(earlier.state_dict())
    pred, labels, _ = rows()
    set_iteration(0)
    # Its nuclear norm counts in full, as that of a loss which was never called.
    pred.requires_grad_()
    assert loss(pred, labels).item() == fresh(pred, labels).item()


@pytest.mark.parametrize(('there', 'here'), [(None, C), (C, None), (C + 2, C)])
def test_state_comes_back_into_buffers_of_another_size(there, here):
    earlier, resumed = DAALFocalLoss(), DAALFocalLoss(num_classes=here)
    run(earlier, range(3))
    full = earlier.state_dict()
    if there is not None:
        for name in ('share', 'variance', 'weight'):
            full[f'class_balance.{name}'] = full[f'class_balance.{name}'][:there]
        tail = full['pending'][-4:]
        full['pending'] = torch.cat((full['pending'][:there], tail))
    resumed.load_state_dict(full)
    for loss in (earlier, resumed):
        run(loss, range(3, 6))
    for name in ('share', 'variance', 'weight'):
        got, want = (
            getattr(loss.class_balance, name)[:C] for loss in (resumed, earlier)
        )
        assert torch.equal(got, want), name
    assert torch.equal(resumed.pending[-4:], earlier.pending[-4:])


def test_sums_of_the_iteration_are_no_buffer_and_go_where_the_loss_goes():
    """DDP copies rank 0's buffers to all ranks unless it is told otherwise."""
    loss = DAALFocalLoss()
    assert 'pending' in loss.state_dict()
    assert 'pending' not in dict(loss.named_buffers())
    assert copy.deepcopy(loss).to('meta').pending.device.type == 'meta'
    assert loss.double().pending.dtype == torch.float64
    partial = loss.state_dict()
    del partial['pending']
    missing, unexpected = DAALFocalLoss().load_state_dict(partial, strict=False)
    assert (missing, unexpected) == (['pending'], [])


def test_scalars_show_the_last_loss_there_was(hub):
    """Not 0 for the first call, nor for an iteration whose head does not call."""
    loss = DAALFocalLoss()
    for k in range(4):
        set_iteration(k)
        if k == 2:
            loss.num_classes = C
            loss.before_head(None, ())
            continue
        pred, labels, _ = rows(seed=k)
        loss(pred.requires_grad_(), labels)
    shown = hub.get_scalar('train/daal_task').data[0]
    # Iterations 0, 1 and, with nothing of its own, 2.
    assert len(shown) == 3
    assert shown[0] > 0
    assert shown[1] == shown[2] != shown[0]


def test_a_head_that_evaluates_ends_no_iteration(hub):
    loss = DAALFocalLoss()
    pred, labels, _ = rows()
    set_iteration(0)
    loss(pred.requires_grad_(), labels)
    pending = loss.pending.clone()
    set_iteration(1)
    with torch.no_grad():
        loss.before_head(None, ())
    loss.eval().before_head(None, ())
    assert torch.equal(loss.pending, pending)
    loss.train().before_head(None, ())
    assert not loss.pending.any()


def test_buffers_never_change_identity_or_shape():
    loss = DAALFocalLoss(bnm_weight=0.05)
    before = {name: (id(b), b.shape) for name, b in loss.named_buffers()}
    for k in range(3):
        loss(rows(seed=k)[0].requires_grad_(), rows(seed=k)[1])
    assert before == {name: (id(b), b.shape) for name, b in loss.named_buffers()}


@pytest.mark.parametrize('update_buffers', [False, True])
def test_average_models_of_mmengine_can_follow_the_buffers(update_buffers):
    loss = DAALFocalLoss(bnm_weight=0.05)
    average = ExponentialMovingAverage(loss, update_buffers=update_buffers)
    for k in range(3):
        loss(rows(seed=k)[0].requires_grad_(), rows(seed=k)[1])
        average.update_parameters(loss)
    assert average.module.class_balance.num_measurements > 0


# --- inputs at the edge ---------------------------------------------------------------
@pytest.mark.parametrize('columns', [C, C + 1])
@pytest.mark.parametrize('num_rows', [0, 9])
def test_no_rows_and_no_foreground(columns, num_rows):
    loss = DAALLoss(use_sigmoid=columns == C, bnm_weight=0.05)
    pred = torch.zeros(num_rows, columns, requires_grad=True)
    for _ in range(2):
        value = loss(pred, torch.full((num_rows,), C))
        assert value.isfinite()
        value.backward()
    assert (value == 0) == (num_rows == 0)
    assert loss.class_balance.num_measurements == 0
    assert all(buffer.isfinite().all() for buffer in loss.buffers())


@pytest.mark.parametrize('use_sigmoid', [False, True])
@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_non_finite_logits_give_a_non_finite_loss_and_leave_the_state(use_sigmoid, bad):
    loss = DAALLoss(use_sigmoid, bnm_weight=0.05)
    pred, labels, _ = rows(C if use_sigmoid else C + 1)
    for _ in range(3):
        loss(pred.clone().requires_grad_(), labels)
    before = state(loss)
    broken = pred.clone()
    broken[labels < C] = bad
    value = loss(broken.requires_grad_(), labels)
    assert not value.isfinite()
    for name, buffer in loss.state_dict().items():
        assert torch.equal(buffer, before[name]), name


def test_one_non_finite_call_voids_its_whole_iteration():
    loss = DAALFocalLoss(bnm_weight=0.05)
    for k in range(4):
        set_iteration(k)
        for level in range(2):
            pred, labels, _ = rows(seed=10 * k + level)
            if k == 1 and level == 0:
                pred[0, 0] = torch.nan
            loss(pred.requires_grad_(), labels)
            assert loss.pending.isfinite().all()
    assert loss.proportion.num_measurements == 2
    assert loss.class_balance.num_measurements == 2


@pytest.mark.parametrize('use_sigmoid', [False, True])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(use_sigmoid, dtype):
    pred, labels, weight = rows(C if use_sigmoid else C + 1)
    half = pred.to(dtype)
    loss = DAALLoss(use_sigmoid, bnm_weight=0.3, bnm_adaptive=False)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value, grad = value_and_grad(loss, half, labels, weight)
    fresh = DAALLoss(use_sigmoid, bnm_weight=0.3, bnm_adaptive=False)
    want, want_grad = value_and_grad(fresh, half.float(), labels, weight)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(grad.float(), want_grad, rtol=1e-2, atol=1e-5)
    assert torch.equal(loss.class_balance.share, fresh.class_balance.share)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('options', [{}, {'bnm_weight': 0.05}])
def test_filters_of_a_model_in_half_precision_stay_in_float32(dtype, options):
    loss, want = DAALFocalLoss(**options).to(dtype), DAALFocalLoss(**options)
    for seed in range(3):
        pred, labels, _ = rows(seed=seed)
        pred = pred.to(dtype)
        torch.testing.assert_close(
            value_and_grad(loss, pred, labels), value_and_grad(want, pred, labels)
        )
    assert_same_state(state(loss), state(want))


def test_rows_without_weight_are_no_samples():
    loss = DAALFocalLoss(bnm_weight=0.05)
    pred, labels, _ = rows()
    weight = (labels != 2).float()
    loss(pred.requires_grad_(), labels, weight)
    counts = np.bincount(labels, minlength=C + 1)[:C].astype(float)
    counts[2] = 0
    np.testing.assert_allclose(
        loss.class_balance.share[:C], counts / counts.sum(), atol=0.02
    )


def test_soft_targets_are_counted_in_parts():
    loss = DAALFocalLoss(bnm_weight=0.05)
    soft = torch.tensor([[0.5, 0, 0, 0, 0], [0, 0.25, 0, 0, 0], [0, 0, 0, 0, 0.0]])
    pred = torch.zeros(3, C, requires_grad=True)
    set_iteration(0)
    loss(pred, soft)
    assert loss.pending[:C].tolist() == [0.5, 0.25, 0, 0, 0]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_soft_targets_are_counted_in_float32_under_autocast(dtype):
    loss = DAALFocalLoss()
    set_iteration(0)
    with torch.autocast('cpu', dtype=dtype):
        loss(torch.zeros(3001, C, requires_grad=True), torch.eye(C)[[1] * 3001])
    assert loss.pending[:C].tolist() == [0, 3001, 0, 0, 0]


def test_less_than_one_sample_has_shares_too():
    loss = DAALFocalLoss()
    soft = torch.tensor([[0.18, 0, 0.02, 0, 0]])
    for k in range(400):
        set_iteration(k)
        loss(torch.zeros(1, C, requires_grad=True), soft)
    want = torch.tensor([0.9, 0, 0.1, 0, 0])
    share = loss.class_balance.share[:C]
    torch.testing.assert_close(share, want, rtol=0, atol=0.03)


# --- errors ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'gama': 2}, TypeError, 'gama'),
        ({'gamma': -1}, ValueError, 'gamma: .* >= 0, got -1'),
        ({'gamma': [1, -1]}, ValueError, r'gamma: .* one a class, got \[1.0, -1.0\]'),
        ({'gamma': 'auto'}, TypeError, "gamma: .* got 'auto'"),
        ({'alpha': 2}, ValueError, 'alpha: .* >= 0 and <= 1, got 2'),
        ({'alpha': 'best'}, ValueError, "alpha: .*, got 'best'"),
        ({'beta': 2.0}, ValueError, 'beta: quality targets need use_sigmoid=True'),
        ({'reduction': 'max'}, ValueError, "reduction: .*'mean'.*, got 'max'"),
        ({'loss_weight': -1}, ValueError, 'loss_weight: .* >= 0, got -1'),
        ({'use_mask': True}, ValueError, 'use_mask: expected False, got True'),
        ({'use_sigmoid': 'yes'}, TypeError, "use_sigmoid: .* got 'yes'"),
        ({'num_classes': 0}, ValueError, 'num_classes: .* >= 1, got 0'),
        ({'bnm_weight': -0.1}, ValueError, 'bnm_weight: .* >= 0, got -0.1'),
        ({'bnm_adaptive': 1}, TypeError, 'bnm_adaptive: expected True or False'),
        ({'bnm_normalization': 'l2'}, ValueError, "bnm_normalization: .* got 'l2'"),
        ({'bnm_method': 'qr'}, ValueError, "bnm_method: .*'gram'.* got 'qr'"),
        ({'bnm_max_rows': 0}, ValueError, 'bnm_max_rows: .* >= 1, got 0'),
        (
            {'confusion_weight': -1, 'use_sigmoid': True},
            ValueError,
            'confusion_weight: .* >= 0, got -1',
        ),
        (
            {'confusion_weight': 0.1},
            ValueError,
            'confusion_weight: expected 0 with use_sigmoid=False, .* already, got 0.1',
        ),
        ({'class_balance': True}, TypeError, 'class_balance: expected a dict'),
        (
            {'class_balance': {'taau': 1}},
            TypeError,
            r"class_balance: unknown option 'taau'; allowed are .*'tau'",
        ),
        (
            {'class_balance': {'tau': -1}},
            ValueError,
            r'class_balance\.tau: .* >= 0, got -1',
        ),
        ({'update_cycle': 0}, ValueError, 'update_cycle: .* >= 1, got 0'),
        ({'log_prefix': 'loss'}, ValueError, "log_prefix: .* without 'loss'"),
        (
            {'update_cycle_range': None},
            ValueError,
            r'update_cycle_range: expected \(T_min, T_max\), got None',
        ),
        ({'class_weight': [-1.0]}, ValueError, 'class_weight: .* >= 0'),
        ({'class_weight': float('inf')}, ValueError, 'class_weight: .* finite .*inf'),
        ({'class_weight': [1.0, float('nan')]}, ValueError, 'class_weight: .*, nan'),
        ({'class_weight': 'abc'}, TypeError, "class_weight: .* numbers, got 'abc'"),
        ({'gamma': ['a']}, TypeError, r"gamma: expected numbers, got \['a'\]"),
        (
            {'use_sigmoid': True, 'bg_cls_weight': 0.1},
            ValueError,
            'bg_cls_weight: there is no background class .*, got 0.1',
        ),
    ],
)
def test_bad_options_name_the_key(options, error, message):
    with pytest.raises(error, match=message):
        MODELS.build({'type': 'DAALLoss', **options})


@pytest.mark.parametrize(
    ('options', 'columns', 'target', 'message'),
    [
        ({'num_classes': 80}, C, None, r'num_classes: .* 80 .* \(60, 5\) has 5'),
        ({}, C, torch.full((N,), C + 1), r'labels in 0\.\.5, where 5 .* from 6 to 6'),
        ({}, C, torch.full((N,), -1), r'labels in 0\.\.5, .* from -1 to -1'),
        ({}, C, torch.zeros(N), r'target: expected integer labels .* torch.float32'),
        ({}, C, torch.zeros(N + 1).long(), r'target \(labels\): .* \(60,\), got \(61,'),
        ({}, C, torch.zeros(N, C + 2), r'target: expected shape .* got \(60, 7\)'),
        ({}, C, torch.full((N, C), 3.0), r'target: expected soft targets in \[0, 1\]'),
        ({'use_sigmoid': False}, 1, None, r'pred: shape \(60, 1\) leaves 0 classes'),
        ({'gamma': [1.0, 2.0]}, C, None, 'gamma: expected one value or 5 .*, got 2'),
        ({'class_weight': [1.0, 2.0]}, C, None, 'class_weight: expected 5 .*, got 2'),
        ({}, 3000, None, 'num_classes: .* write num_classes=3000'),
    ],
)
def test_bad_input_names_the_tensor(options, columns, target, message):
    loss = DAALFocalLoss(**options)
    if target is None:
        target = torch.zeros(N, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(N, columns), target)


def test_more_bad_input():
    loss = DAALFocalLoss(bnm_weight=0.05)
    pred, labels, weight = rows()
    with pytest.raises(
        ValueError, match=r'weight: expected shape \(60,\) or \(60, 5\)'
    ):
        loss(pred, labels, torch.ones(7))
    with pytest.raises(ValueError, match="avg_factor: can not be used with .*'sum'"):
        loss(pred, labels, avg_factor=3.0, reduction_override='sum')
    with pytest.raises(ValueError, match="reduction_override: .* got 'max'"):
        loss(pred, labels, reduction_override='max')
    with pytest.raises(
        TypeError, match='target: expected a tensor or a pair .*, got str'
    ):
        loss(pred, 'labels')
    with pytest.raises(ValueError, match=r'target: expected \(labels, scores\), got 3'):
        loss(pred, (labels, weight, weight))
    with pytest.raises(ValueError, match=r'target\[1\] \(scores\): expected shape'):
        loss(pred, (labels, weight[:3]))
    with pytest.raises(TypeError, match=r'target\[1\]: .* tensor, got NoneType'):
        loss(pred, (labels, None))
    with pytest.raises(ValueError, match='pred: expected a floating point tensor'):
        loss(labels, labels)
    with pytest.raises(ValueError, match='weight: expected one a row for .*scores'):
        loss(pred, (labels, weight), torch.ones(N, C))
    with pytest.raises(ValueError, match='num_classes: the loss holds 5 .* has 4'):
        loss(pred[:, :4], labels.clamp(max=4))
    with pytest.raises(ValueError, match='needs use_sigmoid=True'):
        DAALLoss(bnm_weight=0.05)(torch.zeros(N, C + 1), (labels, weight))


# --- in a model -----------------------------------------------------------------------
@pytest.mark.parametrize(
    'name',
    [
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    ],
)
def test_drops_into_shipped_configs_by_merging(name, shipped_config, one_image_batch):
    config = shipped_config(name)
    two_stage = 'roi_head' in config.model
    head = {'bbox_head': {'loss_cls': {'type': 'DAALLoss'}}}
    config.merge_from_dict({'model': {'roi_head': head} if two_stage else head})
    config.model.backbone.update(depth=18, init_cfg=None)
    config.model.neck.in_channels = [64, 128, 256, 512]
    model = MODELS.build(Config({'model': config.model}).model)
    bbox_head = model.roi_head.bbox_head if two_stage else model.bbox_head
    loss = bbox_head.loss_cls
    assert type(loss) is DAALLoss
    assert loss.use_sigmoid == (not two_stage)
    assert loss.task_term.gamma == (0.0 if two_stage else 2.0)
    losses = model.loss(*one_image_batch(model, config.model))
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    layer = bbox_head.fc_cls if two_stage else bbox_head.retina_cls
    assert layer.weight.grad.abs().sum() > 0
    assert loss.pending.abs().sum() > 0 or loss.class_balance.num_measurements > 0
