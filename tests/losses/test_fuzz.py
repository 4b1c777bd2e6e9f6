"""Random inputs of every kind: finite in, finite out, and filters that stay finite.

FUZZ=10000 python -m pytest tests/losses/test_fuzz.py    runs the long form.
"""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS

from daal_mmdet.covariance_bank import CovarianceBank
from daal_mmdet.losses import DAALLoss, UncertaintyAwareSmoothL1
from daal_mmdet.losses.covariance_weighting import RowWeights

EXAMPLES = int(os.environ.get('FUZZ', 60))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
)
# What a logit may be; half precision ends at 65504.
SCALES = (0.0, 1.0, 30.0, 1e3, 6e4)
AUTOCAST = (None, torch.bfloat16, torch.float16)
LABELS = (
    'mixed',
    'background',
    'foreground',
    'one class',
    'ignored',
    'soft',
    'quality',
)
WEIGHTS = (None, 'ones', 'zeros', 'random', 'huge', 'entries')

inputs = st.fixed_dictionaries(
    {
        'rows': st.integers(0, 40),
        'classes': st.integers(1, 9),
        'scale': st.sampled_from(SCALES),
        'labels': st.sampled_from(LABELS),
        'weight': st.sampled_from(WEIGHTS),
        'factor': st.sampled_from((None, 1.0, 1e-3, 0.0, 100.0)),
        'autocast': st.sampled_from(AUTOCAST),
        'seed': st.integers(0, 2**32 - 1),
    }
)
options = st.fixed_dictionaries(
    {
        'use_sigmoid': st.booleans(),
        'gamma': st.sampled_from((None, 0.0, 0.5, 1.0, 2.0, 5.0)),
        'alpha': st.sampled_from(('auto', None, 0.0, 0.25, 1.0)),
        'bnm_weight': st.sampled_from((0.0, 0.05, 1.0)),
        'bnm_normalization': st.sampled_from(('bound', 'batch', 'rank')),
        'bnm_method': st.sampled_from(('auto', 'svd', 'gram', 'newton_schulz', 'fast')),
        'class_balance': st.sampled_from(
            ({}, None, {'tau': 2.0, 'max_weight': 100.0}, {'process_noise': 0.0})
        ),
        'reduction': st.sampled_from(('mean', 'sum', 'none')),
        'update_cycle': st.sampled_from((None, 1, 50)),
    }
)


def batch(case, use_sigmoid):
    """Logits, a target, a weight and an average factor."""
    rng = np.random.default_rng(case['seed'])
    N, C = case['rows'], case['classes']
    logits = case['scale'] * rng.uniform(-1, 1, (N, C if use_sigmoid else C + 1))
    pred = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    kind = case['labels']
    labels = torch.from_numpy(rng.integers(0, C + 1, N))
    if kind == 'background':
        labels.fill_(C)
    elif kind == 'foreground':
        labels %= C
    elif kind == 'one class':
        labels.fill_(0)
    elif kind == 'ignored':
        labels[torch.from_numpy(rng.random(N) < 0.7)] = -100
    target = labels
    if kind == 'soft':
        soft = rng.dirichlet(np.ones(C + 1), N)[:, :C]
        target = torch.tensor(soft, dtype=torch.float32)
    elif kind == 'quality' and use_sigmoid:
        target = (labels, torch.tensor(rng.random(N), dtype=torch.float32))
    # Quality targets and a softmax take a weight a row.
    entries = (N, C) if use_sigmoid and isinstance(target, torch.Tensor) else (N,)
    weight = {
        None: None,
        'ones': torch.ones(N),
        'zeros': torch.zeros(N),
        'random': torch.tensor(rng.random(N), dtype=torch.float32),
        'huge': torch.full((N,), 1e4),
        'entries': torch.tensor(rng.random(entries), dtype=torch.float32),
    }[case['weight']]
    factor = case['factor']
    if case['autocast'] == torch.float16:
        # A gradient of 1e7 is right there and does not fit; scaling it down is what
        # GradScaler is for.
        weight = None if weight is None else weight.clamp(max=100)
        factor = None if factor is None else max(factor, 1.0)
    return pred, target, weight, factor


def forward(loss, case, use_sigmoid, **extra):
    pred, target, weight, factor = batch(case, use_sigmoid)
    dtype = case['autocast']
    # Under autocast a head's last layer gives half precision.
    given_pred = pred if dtype is None else pred.to(dtype)
    with torch.autocast(
        'cpu', dtype=dtype or torch.bfloat16, enabled=dtype is not None
    ):
        value = loss(given_pred, target, weight, avg_factor=factor, **extra)
    return pred, value


@fuzz
@given(case=inputs, chosen=options, calls=st.integers(1, 3))
def test_daal_loss_is_finite(case, chosen, calls):
    factor = case['factor']
    # What mmdet's losses refuse or can't divide by.
    if chosen['reduction'] != 'mean' or factor == 0.0:
        case = {**case, 'factor': None}
    loss = DAALLoss(**chosen)
    for call in range(calls):
        pred, value = forward(
            loss, {**case, 'seed': case['seed'] + call}, chosen['use_sigmoid']
        )
        assert torch.isfinite(value).all(), value
        assert value.dtype == torch.float32
        value.sum().backward()
        assert torch.isfinite(pred.grad).all()
    for name, buffer in loss.named_buffers():
        assert torch.isfinite(buffer.float()).all(), name


def test_filters_stay_finite_over_thousands_of_random_iterations():
    """One loss fed with whatever comes, also what is not finite."""
    rng = np.random.default_rng(0)
    losses = {s: DAALLoss(use_sigmoid=s, num_classes=5) for s in (True, False)}
    for k in range(max(EXAMPLES, 150)):
        case = {
            'rows': int(rng.integers(0, 30)),
            'classes': 5,
            'scale': float(rng.choice(SCALES)),
            'labels': str(rng.choice(LABELS)),
            'weight': rng.choice([w for w in WEIGHTS if w != 'entries']),
            'factor': float(rng.choice([1e-3, 1.0, 100.0])),
            'autocast': AUTOCAST[rng.integers(3)],
            'seed': k,
        }
        for use_sigmoid, loss in losses.items():
            if k % 50 == 49:
                # A broken batch: the filters leave it out.
                broken = torch.full((4, 5 + (not use_sigmoid)), float('nan'))
                loss(broken.requires_grad_(), torch.zeros(4, dtype=torch.int64))
            pred, value = forward(loss, case, use_sigmoid)
            assert torch.isfinite(value)
            value.backward()
            assert torch.isfinite(pred.grad).all()
            for name, buffer in loss.named_buffers():
                assert torch.isfinite(buffer.float()).all(), (k, name)
    for loss in losses.values():
        balance, proportion = loss.class_balance, loss.proportion
        assert balance.num_measurements > 50
        assert ((balance.share >= 0) & (balance.share <= 1)).all()
        assert (balance.variance >= 0).all()
        assert ((balance.weight >= 1) & (balance.weight <= 10)).all()
        assert 0 <= proportion.proportion <= 1
        assert torch.linalg.eigvalsh(proportion.covariance).min() >= -1e-6 * (
            proportion.covariance.abs().max()
        )


class _FixedWeights:
    """Stands in for the tracker of a hook."""

    def __init__(self, rows, weights):
        self.call = RowWeights(rows, weights)

    def next_call(self, num_rows):
        return self.call

    def measure(self, residuals):
        assert len(residuals) == len(self.call.weights)
        assert residuals.isfinite().all()


@fuzz
@given(
    rows=st.integers(0, 20),
    scale=st.sampled_from((0.0, 1e-3, 1.0, 1e3, 6e4)),
    beta=st.sampled_from((0.0, 1e-3, 1.0)),
    normalize=st.sampled_from(('mean', None)),
    tracked=st.booleans(),
    autocast=st.sampled_from(AUTOCAST),
    seed=st.integers(0, 2**32 - 1),
)
def test_box_loss_is_finite(rows, scale, beta, normalize, tracked, autocast, seed):
    rng = np.random.default_rng(seed)
    pred, target = (
        torch.tensor(scale * rng.uniform(-1, 1, (rows, 4)), dtype=torch.float32)
        for _ in range(2)
    )
    pred.requires_grad_()
    positive = torch.tensor(rng.integers(0, 2, rows))
    weight = positive[:, None].expand(-1, 4).float()
    # The printed weights have no bound, and a gradient in half precision has one.
    limit = 1e3 if normalize is None else None
    loss = UncertaintyAwareSmoothL1(beta=beta, normalize=normalize, max_weight=limit)
    if tracked:
        # From variances of 1e-10, the floor of the filters, to 1e6.
        log_det = torch.tensor(4 * rng.uniform(-23, 14, int(positive.sum())))
        loss.tracker = _FixedWeights(
            positive.nonzero().squeeze(1), loss.row_weights(log_det.float(), None, 1)
        )
    given_pred = pred if autocast is None else pred.to(autocast)
    with torch.autocast(
        'cpu', dtype=autocast or torch.bfloat16, enabled=autocast is not None
    ):
        value = loss(given_pred, target, weight, avg_factor=max(rows, 1))
    assert torch.isfinite(value)
    value.backward()
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize('covariance', ['diag', 'full'])
@pytest.mark.parametrize('noise', [None, 0.5])
def test_bank_stays_finite_over_thousands_of_random_iterations(covariance, noise):
    rng = np.random.default_rng(0)
    bank = CovarianceBank(covariance, measurement_noise=noise)
    for level in ((3, 4, 5), (3, 2, 2), (1, 1, 1)):
        bank.add_level(*level)
    everywhere = torch.arange(len(bank))
    for k in range(max(EXAMPLES, 150)):
        rows = int(rng.integers(0, 40))
        slots = torch.from_numpy(rng.integers(0, len(bank), rows))
        scale = rng.choice([0.0, 1e-6, 1.0, 1e3, 6e4])
        residuals = torch.tensor(scale * rng.normal(size=(rows, 4))).float()
        if k % 50 == 49 and rows:
            residuals[0, 0] = rng.choice([np.nan, np.inf])
        bank.step(slots, residuals)
        for key, value in bank.state_dict().items():
            if isinstance(value, torch.Tensor):
                assert torch.isfinite(value.float()).all(), (k, key)
        assert torch.isfinite(bank.log_det(everywhere)).all(), k
    assert bank.iterations == k + 1
    assert bank.visits.sum() > 1000


@fuzz
@given(
    rows=st.integers(0, 30),
    columns=st.integers(1, 9),
    scale=st.sampled_from(SCALES),
    normalization=st.sampled_from(('bound', 'batch', 'rank')),
    method=st.sampled_from(('auto', 'svd', 'gram', 'newton_schulz', 'fast')),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float16)),
    seed=st.integers(0, 2**32 - 1),
)
def test_bnm_loss_is_finite(rows, columns, scale, normalization, method, dtype, seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(scale * rng.uniform(-1, 1, (rows, columns))).to(dtype)
    logits.requires_grad_()
    config = dict(
        type='BNMLoss', normalization=normalization, method=method, use_sigmoid=True
    )
    value = MODELS.build(config)(logits)
    assert torch.isfinite(value)
    value.backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_what_is_not_finite_is_not_hidden(value):
    """The loss shows it, so that CheckInvalidLossHook can stop the training."""
    pred = torch.zeros(3, 4)
    pred[1, 2] = value
    loss = DAALLoss(use_sigmoid=True)
    result = loss(pred.requires_grad_(), torch.tensor([0, 1, 4]))
    if np.isnan(value):
        assert not torch.isfinite(result)
    for buffer in loss.buffers():
        assert torch.isfinite(buffer.float()).all()
