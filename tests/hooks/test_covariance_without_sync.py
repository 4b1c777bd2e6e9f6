"""From the announced slots on, nothing reads a device value on the host."""

import contextlib

import pytest
import torch

from daal_mmdet.covariance_bank import COVARIANCES, CovarianceBank
from daal_mmdet.hooks.covariance_tracker import Announcement, CovarianceTracker
from daal_mmdet.losses import UncertaintyAwareLoss, UncertaintyAwareSmoothL1

ROWS, POSITIVES = 20, 7


def make_loss(name):
    if name == 'UncertaintyAwareSmoothL1':
        return UncertaintyAwareSmoothL1()
    # Its SmoothL1Loss and IoU losses ask themselves whether a weight is positive.
    return UncertaintyAwareLoss(loss=dict(type='mmdet.MSELoss'))


def run_without_values(loss, covariance, monkeypatch):
    """Three iterations on the meta device: not a CPU, and there is nothing to read."""
    # Autocast does not know the meta device.
    monkeypatch.setattr(torch, 'autocast', lambda **_: contextlib.nullcontext())
    with torch.device('meta'):
        bank = CovarianceBank(covariance, device='meta')
        tracker = CovarianceTracker(loss, bank, 'head.loss_bbox')
        tracker.level(0, 3, (4, 5))
        loss.tracker = tracker
        pred = torch.randn(ROWS, 4, requires_grad=True)
        rows = torch.arange(POSITIVES)
        for _ in range(3):
            slots = torch.randint(len(bank), (POSITIVES,))
            tracker.announce([Announcement(ROWS, rows, slots)], skip_empty=False)
            target, weight = torch.randn(ROWS, 4), torch.ones(ROWS, 4)
            loss(pred, target, weight, avg_factor=3.0).backward()
            tracker.step()
            assert bank.mean_log_det().shape == (1,)
    assert bank.iterations == 3
    assert pred.grad.device.type == 'meta'


@pytest.mark.parametrize('covariance', COVARIANCES)
@pytest.mark.parametrize('name', ['UncertaintyAwareSmoothL1', 'UncertaintyAwareLoss'])
def test_no_value_is_read_on_a_gpu(name, covariance, monkeypatch):
    run_without_values(make_loss(name), covariance, monkeypatch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('covariance', COVARIANCES)
@pytest.mark.parametrize('name', ['UncertaintyAwareSmoothL1', 'UncertaintyAwareLoss'])
def test_a_gpu_is_never_waited_for(name, covariance):
    """And loss, gradient and filters are those of a CPU."""
    generator = torch.Generator().manual_seed(0)
    trackers, losses = {}, {}
    for device in ('cpu', 'cuda'):
        losses[device] = make_loss(name)
        bank = CovarianceBank(covariance, device=device)
        trackers[device] = CovarianceTracker(losses[device], bank, 'head.loss_bbox')
        trackers[device].level(0, 3, (4, 5))
        losses[device].tracker = trackers[device]
    for iteration in range(-5, 4):
        slots = torch.randint(60, (POSITIVES,), generator=generator)
        boxes = torch.randn(2, ROWS, 4, generator=generator)
        found = []
        for device, loss in losses.items():
            target, leaf = boxes.to(device)
            leaf.requires_grad_()
            rows = torch.arange(POSITIVES, device=device)
            weight = torch.ones(ROWS, 4, device=device)
            on_device = slots.to(device)
            # The first iterations record the graphs.
            strict = device == 'cuda' and iteration >= 0
            torch.cuda.set_sync_debug_mode('error' if strict else 'default')
            try:
                tracker = trackers[device]
                tracker.announce(
                    [Announcement(ROWS, rows, on_device)], skip_empty=False
                )
                value = loss(leaf, target, weight, avg_factor=3.0)
                value.backward()
                tracker.step()
            finally:
                torch.cuda.set_sync_debug_mode('default')
            found.append((value.detach().cpu(), leaf.grad.cpu()))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    every = torch.arange(60)
    torch.testing.assert_close(
        trackers['cuda'].bank.log_det(every.cuda()).cpu(),
        trackers['cpu'].bank.log_det(every),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ('read', 'message'),
    [
        (lambda slots: slots.unique(), 'unique'),
        (lambda slots: slots[slots > 1], 'nonzero'),
        (lambda slots: slots.max().item(), 'item'),
    ],
)
def test_a_read_would_be_found(read, message, monkeypatch):
    step = CovarianceBank.step

    def with_read(self, slots, residuals):
        read(slots)
        step(self, slots, residuals)

    monkeypatch.setattr(CovarianceBank, 'step', with_read)
    with pytest.raises((RuntimeError, NotImplementedError), match=message):
        run_without_values(make_loss('UncertaintyAwareSmoothL1'), 'diag', monkeypatch)
