"""The loss never reads a device value on the host, and compiles to whole graphs."""

import contextlib

import pytest
import torch

from daal_mmdet.losses import DAALLoss, adaptive_composition
from daal_mmdet.losses.bnm_loss import choose_rows
from daal_mmdet.losses.iteration_scalars import IterationScalars

N, C = 20, 5


def run_without_values(monkeypatch, moved_by_fsdp=False, **options):
    """Three iterations on the meta device: not a CPU, and there is nothing to read."""
    sent = []
    # It copies into pinned memory and records an event, which need a driver.
    monkeypatch.setattr(IterationScalars, 'send', lambda self, scalars: sent.append(1))
    monkeypatch.setattr(adaptive_composition, 'current_iteration', lambda: None)
    # Autocast does not know the meta device.
    monkeypatch.setattr(torch, 'autocast', lambda **_: contextlib.nullcontext())
    with torch.device('cpu' if moved_by_fsdp else 'meta'):
        loss = DAALLoss(num_classes=C, bnm_weight=0.05, **options)
    if moved_by_fsdp:
        for module in loss.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to('meta')
    with torch.device('meta'):
        pred = torch.randn(N, C if loss.use_sigmoid else C + 1, requires_grad=True)
        labels = torch.randint(0, C + 1, (N,))
        for _ in range(3):
            value = loss(pred, labels, torch.ones(N), avg_factor=3.0)
            value.backward()
            assert pred.grad.device.type == 'meta'
    assert len(sent) == 3


@pytest.mark.parametrize(
    'options',
    [
        {'use_sigmoid': True},
        {'use_sigmoid': False},
        {'use_sigmoid': True, 'gamma': 1.5, 'bnm_max_rows': 4},
        {'use_sigmoid': True, 'bnm_method': 'fast', 'update_cycle': 2},
        {'use_sigmoid': True, 'confusion_weight': 0},
    ],
)
def test_no_value_is_read_on_a_gpu(options, monkeypatch):
    run_without_values(monkeypatch, **options)


def test_buffers_may_be_moved_one_by_one(monkeypatch):
    """As FSDP moves them, without the module's own ``to``."""
    run_without_values(monkeypatch, moved_by_fsdp=True, use_sigmoid=True)


def test_nor_is_one_for_the_accuracy():
    with torch.device('meta'):
        got = DAALLoss(True).get_accuracy(torch.randn(N, C), torch.randint(0, C, (N,)))
    assert got['acc_classes'].shape == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_a_gpu_is_never_waited_for(use_sigmoid, dtype, monkeypatch):
    """And the loss is that of a CPU, filters included."""
    on_cpu, on_gpu = (
        DAALLoss(use_sigmoid, num_classes=C, bnm_weight=0.05) for _ in range(2)
    )
    on_gpu.cuda()
    generator = torch.Generator().manual_seed(0)
    # The first calls compile the kernel and record the graphs.
    for iteration in range(-5, 4):
        monkeypatch.setattr(
            adaptive_composition, 'current_iteration', lambda i=iteration: i
        )
        leaf = torch.randn(N, C if use_sigmoid else C + 1, generator=generator)
        leaf = leaf.to(dtype).requires_grad_()
        pred = leaf.detach().cuda().requires_grad_()
        labels = torch.randint(0, C + 1, (N,), generator=generator)
        on_device, weight = labels.cuda(), torch.ones(N, device='cuda')
        torch.cuda.set_sync_debug_mode('error' if iteration >= 0 else 'default')
        try:
            value = on_gpu(pred, on_device, weight, avg_factor=3.0)
            value.backward()
        finally:
            torch.cuda.set_sync_debug_mode('default')
        want = on_cpu(leaf, labels, torch.ones(N), avg_factor=3.0)
        want.backward()
        torch.testing.assert_close(value.cpu(), want, rtol=1e-4, atol=1e-5)
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(
            pred.grad.cpu(), leaf.grad, rtol=tolerance, atol=tolerance
        )
    for ours, wanted in zip(on_gpu.buffers(), on_cpu.buffers(), strict=True):
        torch.testing.assert_close(ours.cpu(), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ('read', 'message'),
    [
        (lambda mask: mask.sum().item(), 'item'),
        (lambda mask: bool(mask.any()), 'item'),
        (lambda mask: mask.nonzero(), 'nonzero'),
    ],
)
def test_a_read_would_be_found(read, message, monkeypatch):
    def with_read(mask, max_rows):
        read(mask)
        return choose_rows(mask, max_rows)

    monkeypatch.setattr('daal_mmdet.losses.daal_loss.choose_rows', with_read)
    with pytest.raises((RuntimeError, NotImplementedError), match=message):
        run_without_values(monkeypatch, use_sigmoid=True)


@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_graph_breaks_only_at_the_message_hub(use_sigmoid):
    loss = DAALLoss(num_classes=C, use_sigmoid=use_sigmoid, bnm_weight=0.05)
    pred = torch.randn(N, C if use_sigmoid else C + 1, requires_grad=True)
    labels = torch.randint(0, C + 1, (N,))
    # What is set up at the first call is set up.
    loss(pred, labels)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(loss)(pred, labels, torch.ones(N), avg_factor=3.0)
    places = {reason.user_stack[-1].name for reason in explained.break_reasons}
    # The iteration is read, and scalars are shown; by the callers of these.
    assert places <= {'begin_call', '_end_iteration'}, explained.break_reasons


def test_a_compiled_loss_is_not_compiled_again_for_each_iteration(hub):
    torch._dynamo.reset()
    compiled = torch.compile(DAALLoss(use_sigmoid=True), backend='aot_eager')
    graphs = []
    for k in range(6):
        hub.update_info('iter', k)
        pred = torch.randn(N, C, requires_grad=True)
        compiled(pred, torch.randint(0, C + 1, (N,)), torch.ones(N)).backward()
        graphs.append(torch._dynamo.utils.counters['stats']['unique_graphs'])
    assert graphs[0] > 0
    assert graphs[-1] == graphs[-3], graphs


@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_compiled_loss_is_the_eager_loss(use_sigmoid):
    """With no runner the filters change between the forward and the backward pass."""
    torch._dynamo.reset()
    eager, other = (
        DAALLoss(use_sigmoid=use_sigmoid, bnm_weight=0.05) for _ in range(2)
    )
    compiled = torch.compile(other, backend='aot_eager')
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        pred = torch.randn(N, C if use_sigmoid else C + 1, generator=generator)
        labels = torch.randint(0, C + 1, (N,), generator=generator)
        gradients = []
        for loss in (eager, compiled):
            leaf = pred.clone().requires_grad_()
            value = loss(leaf, labels, torch.ones(N), avg_factor=3.0)
            value.backward()
            gradients.append((value.detach(), leaf.grad))
        torch.testing.assert_close(*gradients)
    for ours, want in zip(other.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(ours, want)
