"""Random inputs of every kind: finite in, finite out, and filters that stay finite.

FUZZ=10000 python -m pytest tests/losses/test_fuzz*.py    runs the long form.
"""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from mmdet.registry import MODELS

from daal_mmdet.covariance_bank import CovarianceBank
from daal_mmdet.losses import DAALLoss, UncertaintyAwareLoss, UncertaintyAwareSmoothL1
from daal_mmdet.losses.covariance_weighting import RowWeights
from tests.fuzzing import (
    AUTOCAST,
    ITERATIONS,
    as_a_network_gives_it,
    assert_finite_state,
    autocast,
    fuzz,
)

# What a logit may be; half precision ends at 65504.
SCALES = (0.0, 1.0, 30.0, 1e3, 6e4)
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
        'activated': st.booleans(),
        'confusion_weight': st.sampled_from((0.0, 0.1, 1.0)),
        'class_weight': st.sampled_from((None, 0.0, 2.0, 'random', 'extreme')),
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


def forward(loss, case, use_sigmoid, activated=False):
    pred, target, weight, factor = batch(case, use_sigmoid)
    given_pred = as_a_network_gives_it(pred, case['autocast'])
    with autocast(case['autocast']):
        if activated:
            # softmax would leave half precision under autocast; some heads return.
            given_pred = (
                given_pred.sigmoid() if use_sigmoid else given_pred.softmax(1)
            ).to(given_pred.dtype)
        value = loss(given_pred, target, weight, avg_factor=factor)
    return pred, value


def class_weights(kind, case, use_sigmoid):
    """Fixed weights, one a column of the logits."""
    columns = case['classes'] + (not use_sigmoid)
    rng = np.random.default_rng(case['seed'])
    if kind == 'random':
        return rng.random(columns).tolist()
    if kind == 'extreme':
        high = 100.0 if case['autocast'] == torch.float16 else 1e4
        return rng.choice([0.0, 1e-6, high], columns).tolist()
    return kind


@fuzz
@given(case=inputs, chosen=options, calls=st.integers(1, 3))
def test_daal_loss_is_finite(case, chosen, calls):
    factor = case['factor']
    # What mmdet's losses refuse or can't divide by.
    if chosen['reduction'] != 'mean' or factor == 0.0:
        case = {**case, 'factor': None}
    use_sigmoid, activated = chosen['use_sigmoid'], chosen['activated']
    weights = class_weights(chosen['class_weight'], case, use_sigmoid)
    confusion = chosen['confusion_weight'] if use_sigmoid else 0.0
    changed = {'class_weight': weights, 'confusion_weight': confusion}
    loss = DAALLoss(**{**chosen, **changed})
    for call in range(calls):
        pred, value = forward(
            loss, {**case, 'seed': case['seed'] + call}, use_sigmoid, activated
        )
        assert torch.isfinite(value).all(), value
        assert value.dtype == torch.float32
        # As the scaler of mixed precision does: 1 / p is up to 16,384 in float16, and
        # products of all weights up to 1e6.
        large = activated or chosen['class_weight'] == 'extreme'
        scale = 1e-6 if large and case['autocast'] == torch.float16 else 1.0
        (scale * value.sum()).backward()
        assert torch.isfinite(pred.grad).all()
    assert_finite_state(loss)


def test_filters_stay_finite_over_thousands_of_random_iterations():
    """One loss fed with whatever comes, also what is not finite."""
    rng = np.random.default_rng(0)
    weights = [0.0, 1e-6, 1.0, 10.0, 100.0, 1.0]
    losses = {
        (s, False): DAALLoss(use_sigmoid=s, num_classes=5, bnm_weight=0.05)
        for s in (True, False)
    }
    for s, columns in ((True, 5), (False, 6)):
        losses[s, True] = DAALLoss(
            use_sigmoid=s,
            num_classes=5,
            activated=True,
            class_weight=weights[:columns],
            bnm_weight=0.05,
        )
    for k in range(ITERATIONS):
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
        for (use_sigmoid, activated), loss in losses.items():
            # PyTorch itself refuses a NaN as a probability.
            if k % 50 == 49 and not activated:
                # A broken batch: the filters leave it out.
                broken = torch.full((4, 5 + (not use_sigmoid)), float('nan'))
                loss(broken.requires_grad_(), torch.zeros(4, dtype=torch.int64))
            pred, value = forward(loss, case, use_sigmoid, activated)
            assert torch.isfinite(value)
            half = activated and case['autocast'] == torch.float16
            ((1e-6 if half else 1.0) * value).backward()
            assert torch.isfinite(pred.grad).all()
            assert_finite_state(loss, k)
    for loss in losses.values():
        balance, proportion = loss.class_balance, loss.proportion
        assert balance.num_measurements > 50
        assert ((balance.share >= 0) & (balance.share <= 1)).all()
        assert (balance.variance >= 0).all()
        assert ((balance.weight >= 1) & (balance.weight <= 3)).all()
        assert 0 <= proportion.proportion <= 1
        assert torch.linalg.eigvalsh(proportion.covariance).min() >= -1e-6 * (
            proportion.covariance.abs().max()
        )


class _FixedWeights:
    """Stands in for the tracker of a hook."""

    def __init__(self, rows, weights, finite=True):
        self.call = RowWeights(rows, weights)
        self.finite = finite

    def next_call(self, num_rows):
        return self.call

    def measure(self, residuals):
        assert len(residuals) == len(self.call.weights)
        assert not self.finite or residuals.isfinite().all()


@fuzz
@given(
    rows=st.integers(0, 20),
    scale=st.sampled_from((0.0, 1e-3, 1.0, 1e3, 6e4)),
    beta=st.sampled_from((0.0, 1e-3, 1.0)),
    normalize=st.sampled_from(('mean', None)),
    tracked=st.booleans(),
    dtype=st.sampled_from(AUTOCAST),
    seed=st.integers(0, 2**32 - 1),
)
def test_smooth_l1_is_finite(rows, scale, beta, normalize, tracked, dtype, seed):
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
    given_pred = as_a_network_gives_it(pred, dtype)
    with autocast(dtype):
        value = loss(given_pred, target, weight, avg_factor=max(rows, 1))
    assert torch.isfinite(value)
    value.backward()
    assert torch.isfinite(pred.grad).all()


# Boxes that mmdet's losses of boxes and of differences take.
INNER = (
    'IoULoss',
    'BoundedIoULoss',
    'GIoULoss',
    'DIoULoss',
    'CIoULoss',
    'EIoULoss',
    'L1Loss',
    'SmoothL1Loss',
    'BalancedL1Loss',
    'MSELoss',
)


def random_boxes(rng, rows, kind, scale):
    """(x1, y1, x2, y2); 'differences' are any numbers."""
    if kind == 'differences':
        return scale * rng.uniform(-1, 1, (rows, 4))
    corner, size = scale * rng.random((2, rows, 2))
    if kind == 'flat':
        size[rng.random((rows, 2)) < 0.5] = 0.0
    elif kind == 'crossed':  # right before left, as an untrained head may give
        size *= rng.choice([-1.0, 1.0], (rows, 2))
    return np.concatenate([corner, corner + size], 1)


@fuzz
@given(
    rows=st.integers(0, 20),
    inner=st.sampled_from(INNER),
    kind=st.sampled_from(('boxes', 'flat', 'crossed')),
    truth=st.sampled_from(('boxes', 'flat', 'same')),
    scale=st.sampled_from((0.0, 1e-3, 1.0, 1e3, 3e4)),
    normalize=st.sampled_from(('mean', None)),
    weighted=st.sampled_from((None, 'rows', 'entries')),
    reduction=st.sampled_from(('mean', 'sum', 'none')),
    tracked=st.booleans(),
    dtype=st.sampled_from(AUTOCAST),
    seed=st.integers(0, 2**32 - 1),
)
def test_uncertainty_aware_loss_is_finite(
    rows,
    inner,
    kind,
    truth,
    scale,
    normalize,
    weighted,
    reduction,
    tracked,
    dtype,
    seed,
):
    # mmdet's own divide 0 by 0 there; and no true box is crossed.
    assume(inner not in ('CIoULoss', 'EIoULoss') or truth != 'same')
    assume(kind != 'crossed' or truth != 'same')
    # Beside a true box without a side the slope of GIoU is 1e9: it does not fit.
    flat = truth == 'flat' or (truth == 'same' and kind == 'flat')
    assume(dtype != torch.float16 or not flat)
    # Some take a weight an entry only.
    rows_are_weighted = tracked or inner in ('IoULoss', 'GIoULoss', 'DIoULoss')
    assume(weighted != 'rows' or rows_are_weighted)
    rng = np.random.default_rng(seed)
    pred = torch.tensor(random_boxes(rng, rows, kind, scale), dtype=torch.float32)
    target = pred.clone()
    if truth != 'same':
        boxes = random_boxes(rng, rows, truth, scale)
        target = torch.tensor(boxes, dtype=torch.float32)
    pred.requires_grad_()
    positive = torch.tensor(rng.integers(0, 2, rows))
    weight = {None: None, 'rows': positive.float()}.get(weighted)
    if weighted == 'entries':
        weight = positive[:, None].expand(-1, 4).float()
    # The printed weights have no bound, and a gradient in half precision has one.
    limit = 1e3 if normalize is None else None
    loss = UncertaintyAwareLoss(
        dict(type=inner, reduction=reduction), normalize=normalize, max_weight=limit
    )
    if tracked:
        # From variances of 1e-10, the floor of the filters, to 1e6.
        count = rows if weight is None else int(positive.sum())
        log_det = torch.tensor(4 * rng.uniform(-23, 14, count))
        where = None if weight is None else positive.nonzero().squeeze(1)
        weights = loss.row_weights(log_det.float(), None, 1)
        # To a true box without a side nothing is relative; the filters leave it out.
        finite = bool((target[:, 2:] > target[:, :2]).all())
        loss.tracker = _FixedWeights(where, weights, finite)
    given_pred = as_a_network_gives_it(pred, dtype)
    with autocast(dtype):
        factor = max(rows, 1) if reduction == 'mean' else None
        value = loss(given_pred, target, weight, avg_factor=factor)
    assert torch.isfinite(value).all()
    if not rows:
        return  # mmdet's losses of boxes drop the graph of none
    # As the scaler of mixed precision does: a squared error of 3e4, and weights of 1e3.
    scale_down = 1e-6 if dtype == torch.float16 else 1.0
    (scale_down * value.sum()).backward()
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize('covariance', ['diag', 'full'])
@pytest.mark.parametrize('noise', [None, 0.5])
def test_bank_stays_finite_over_thousands_of_random_iterations(covariance, noise):
    rng = np.random.default_rng(0)
    bank = CovarianceBank(covariance, measurement_noise=noise)
    for level in ((3, 4, 5), (3, 2, 2), (1, 1, 1)):
        bank.add_level(*level)
    everywhere = torch.arange(len(bank))
    for k in range(ITERATIONS):
        rows = int(rng.integers(0, 40))
        slots = torch.from_numpy(rng.integers(0, len(bank), rows))
        scale = rng.choice([0.0, 1e-6, 1.0, 1e3, 6e4, 1e12, 1e20])
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
