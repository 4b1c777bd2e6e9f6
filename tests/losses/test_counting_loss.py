import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import MessageHub

from daal_mmdet.losses import CountingLoss, DAALLoss
from daal_mmdet.losses.adaptive_composition import AdaptiveComposition
from tests import oracles

SHAPES = [(6, 8), (4, 5)]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 2, 6, 8, generator=generator, dtype=torch.float64)
    mask = torch.zeros(2, 6, 8, dtype=torch.float64)
    for own, (rows, columns) in zip(mask, SHAPES, strict=True):
        own[:rows, :columns] = 1
    return pred, target, mask


def want_task(task, pred, target):
    total = 0.0
    for p, t, (rows, columns) in zip(pred, target, SHAPES, strict=True):
        for i in range(rows):
            for j in range(columns):
                error = p[i, j].item() - t[i, j].item()
                total += error**2 if task == 'mse' else abs(error)
    return total / len(pred)


@pytest.mark.parametrize('task', ['mse', 'mae'])
@pytest.mark.parametrize('kind', ['ratio', 'raw'])
@pytest.mark.parametrize('weight', [0.0, 0.05, 1.0])
def test_fixed_schemes_are_the_sum_of_their_terms(task, kind, weight, batch):
    pred, target, mask = batch
    loss = CountingLoss(
        task=task, loss_weight=3.0, bnm_weight=weight, bnm_adaptive=False, bnm_kind=kind
    )
    bnm = oracles.density_nuclear_norm_loss(pred.numpy(), SHAPES, kind, 0.1)
    want = 3 * (want_task(task, pred, target) + weight * bnm)
    assert loss(pred, target, mask).item() == pytest.approx(want, rel=1e-6)


def test_the_plain_scheme_is_csrnets_loss_and_gradient(batch):
    pred, target, _ = batch
    ours, theirs = (pred[:1].clone().requires_grad_() for _ in range(2))
    CountingLoss(bnm_weight=0.0)(ours, target[:1]).backward()
    torch.nn.MSELoss(reduction='sum')(theirs, target[:1]).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize('task', ['mse', 'mae'])
def test_gradient(task, batch):
    pred, target, mask = batch
    loss = CountingLoss(task=task, bnm_weight=0.7, bnm_adaptive=False).double()
    assert torch.autograd.gradcheck(
        lambda p: loss(p, target, mask), pred.requires_grad_()
    )


def test_it_is_the_composition_of_daal_loss():
    assert issubclass(CountingLoss, AdaptiveComposition)
    assert issubclass(DAALLoss, AdaptiveComposition)
    for name in ('begin_call', 'compose', 'end_call', '_end_iteration', '_bnm_factor'):
        assert getattr(CountingLoss, name) is getattr(DAALLoss, name)


def test_adaptive_proportion_follows_the_filter(batch):
    pred, target, _ = batch
    loss = CountingLoss(bnm_weight=0.4, update_cycle=1)
    scales = np.linspace(1.0, 0.5, 12)
    found, tasks, bnms = [], [], []
    for scale in scales:
        p = (scale * pred).float()
        found.append(loss(p, target.float()).item())
        tasks.append(((p - target) ** 2).sum().item() / 2)
        bnms.append(
            oracles.density_nuclear_norm_loss(p.numpy(), [(6, 8)] * 2, 'ratio', 0.1)
        )
    # A call uses what the calls before it taught.
    _, proportions = oracles.proportion_filter(tasks, cycle=1)
    factors = 0.4 * np.concatenate([[0.0], proportions[:-1]])
    want = np.array(tasks) + factors * np.array(bnms)
    np.testing.assert_allclose(found, want, rtol=1e-4)
    assert factors[-1] > 0.1


def test_calls_of_one_iteration_are_one_measurement(batch):
    hub = MessageHub.get_current_instance()
    pred, target, _ = batch
    loss = CountingLoss()
    for iteration in range(3):
        hub.update_info('iter', iteration)
        for _ in range(2):
            loss(pred, target)
    assert loss.proportion.num_measurements == 2
    assert loss.calls_per_iteration == 2
    scalars = {name: b.current() for name, b in hub.log_scalars.items()}
    assert set(scalars) == {
        f'train/counting_{name}' for name in ('task', 'bnm', 'lambda', 'gain')
    }
    task = 2 * ((pred - target) ** 2).sum().item() / 2
    assert scalars['train/counting_task'] == pytest.approx(task, rel=1e-5)


def test_evaluation_feeds_nothing_and_ends_no_iteration(batch, hub):
    pred, target, _ = batch
    loss = CountingLoss()
    for k in range(2):
        hub.update_info('iter', k)
        loss(pred, target)
    assert loss.proportion.num_measurements == 1
    hub.update_info('iter', 2)
    loss.eval()(pred, target)
    with torch.no_grad():
        loss.train()(pred, target)
    assert loss.proportion.num_measurements == 1
    loss(pred, target)
    assert loss.proportion.num_measurements == 2
    assert loss.calls_per_iteration == 1


def test_state_is_saved_with_the_model(batch):
    pred, target, _ = batch
    first, second = CountingLoss(), CountingLoss()
    for scale in (1.0, 0.8, 0.7):
        first(scale * pred, target)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(pred, target), second(pred, target))
    assert second.proportion.num_measurements == 4


def test_no_maps_and_half_precision():
    loss = CountingLoss()
    empty = torch.zeros(0, 4, 4, requires_grad=True)
    value = loss(empty, torch.zeros(0, 4, 4))
    value.backward()
    assert value == 0
    assert loss.proportion.num_measurements == 0
    pred = torch.full((1, 4, 4), 300.0, dtype=torch.float16)
    value = CountingLoss(bnm_weight=0.0)(pred, torch.zeros(1, 4, 4))
    # 16 * 300^2 is more than half precision holds.
    assert value.dtype == torch.float32
    assert value == 16 * 300**2


def test_what_is_beyond_the_mask_does_not_count(batch):
    pred, target, mask = batch
    loss = CountingLoss(bnm_weight=1.0, bnm_adaptive=False)
    want = loss(pred, target, mask)
    wild = torch.where(mask > 0, pred, torch.inf).requires_grad_()
    found = loss(wild, target, mask)
    assert torch.equal(found, want)
    found.backward()
    assert (wild.grad[mask == 0] == 0).all()


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(task='rmse'), ValueError, "task: expected one of .*, got 'rmse'"),
        (dict(bnm_kind='log'), ValueError, "bnm_kind: expected one of .*, got 'log'"),
        (dict(bnm_weight=-1), ValueError, 'bnm_weight: expected a value >= 0, got -1'),
        (dict(bnm_adaptive=1), TypeError, 'bnm_adaptive: expected True or False'),
        (dict(bnm_min_norm=0), ValueError, 'bnm_min_norm: expected a value > 0'),
        (dict(log_prefix=None), ValueError, 'log_prefix: .*, got None'),
        (dict(log_prefix='loss'), ValueError, "log_prefix: .* without 'loss', got"),
        (dict(update_cycle=0), ValueError, 'update_cycle: .* >= 1, got 0'),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        MODELS.build(dict(type='CountingLoss', **options))


def test_bad_shapes_are_named():
    loss = CountingLoss()
    with pytest.raises(ValueError, match=r'target: expected shape \(1, 4, 4\) as pred'):
        loss(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5))
    with pytest.raises(ValueError, match=r'pred: expected \(B, H, W\), got \(4, 4\)'):
        loss(torch.zeros(4, 4), torch.zeros(4, 4))
