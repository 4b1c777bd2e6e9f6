"""When work is recorded, on stand-ins for CUDA graphs; and real ones where a GPU is."""

import contextlib
import copy
import pickle

import pytest
import torch

from daal_mmdet import covariance_bank, cuda_replay
from daal_mmdet.covariance_bank import CovarianceBank
from daal_mmdet.cuda_replay import Replay, settings_of, value_with_gradient
from daal_mmdet.losses import DAALLoss, adaptive_composition, bnm_loss
from daal_mmdet.losses.bnm_loss import batch_nuclear_norm_loss

RECORDING = cuda_replay._Recording
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


class Recorded:
    """Stands in for a recording: the same function, inputs and outputs in each call."""

    made = 0

    def __init__(self, function, inputs, device):
        type(self).made += 1
        self.function, self.inputs = function, tuple(t.clone() for t in inputs)
        self.outputs = None

    def __call__(self, inputs):
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given)
        outputs = self.function(*self.inputs)
        if self.outputs is None:
            self.outputs = outputs
        for held, new in zip(
            tensors_of(self.outputs), tensors_of(outputs), strict=True
        ):
            held.copy_(new)
        return self.outputs


def tensors_of(outputs):
    if outputs is None or isinstance(outputs, torch.Tensor):
        return [] if outputs is None else [outputs]
    return list(outputs.values() if isinstance(outputs, dict) else outputs)


@pytest.fixture
def recorded(monkeypatch):
    """Pretend that tensors of the CPU lie on a GPU."""
    for module in (cuda_replay, covariance_bank, adaptive_composition, bnm_loss):
        monkeypatch.setattr(module, 'replayable', lambda tensor: True)
    monkeypatch.setattr(cuda_replay, '_Recording', Recorded)
    monkeypatch.setattr(bnm_loss, '_replay', Replay())
    monkeypatch.setattr(Recorded, 'made', 0)
    return Recorded


def test_a_cpu_records_nothing(monkeypatch):
    monkeypatch.setattr(cuda_replay, '_Recording', Recorded)
    monkeypatch.setattr(Recorded, 'made', 0)
    replay = Replay()
    for number in range(9):
        assert replay(torch.neg, (torch.tensor(number),)) == -number
    assert Recorded.made == 0


def test_familiar_calls_are_recorded_once(recorded):
    replay = Replay()
    for number in range(9):
        assert replay(torch.neg, (torch.tensor(number),)) == -number
        assert recorded.made == (number >= cuda_replay._CALLS_BEFORE)


@pytest.mark.parametrize(
    'change',
    [
        lambda x, state, settings: (x[:1], state, settings),
        lambda x, state, settings: (x.double(), state, settings),
        lambda x, state, settings: (x, state.clone(), settings),
        lambda x, state, settings: (x, state[:1], settings),
        lambda x, state, settings: (x, state, (3,)),
    ],
    ids=['shape', 'dtype', 'place of state', 'shape of state', 'settings'],
)
def test_another_kind_of_call_is_another_recording(recorded, change):
    call = torch.ones(2), torch.zeros(2), (2,)
    other = change(*call)
    replay = Replay()
    for x, state, settings in [call] * 5 + [other] * 5:
        result = replay(
            lambda x, f=settings[0]: f * x, (x,), (state,), settings=settings
        )
        torch.testing.assert_close(result, settings[0] * x)
    assert recorded.made == 2


def test_ever_new_shapes_are_not_recorded(recorded):
    replay = Replay()
    for _ in range(2):
        for size in range(1, 200):
            assert len(replay(torch.neg, (torch.ones(size),))) == size
    assert recorded.made == 0
    assert len(replay._calls) == cuda_replay._MOST_KINDS


def test_nothing_is_recorded_for_a_gradient_that_nobody_wants(recorded):
    logits, mask = torch.randn(6, 3), torch.ones(6, dtype=torch.bool)
    values = []
    for context in (torch.no_grad, torch.inference_mode, contextlib.nullcontext):
        with context():
            for _ in range(5):
                value = batch_nuclear_norm_loss(logits, mask, method='newton_schulz')
        values.append(value)
    assert recorded.made == 0
    assert values[0] == values[1] == values[2]


def test_recordings_are_bounded(recorded):
    replay = Replay()
    for size in range(1, 20):
        for _ in range(5):
            replay(torch.neg, (torch.ones(size),))
    assert recorded.made == cuda_replay._MOST_RECORDINGS


def test_what_can_not_be_recorded_says_how_to_go_without(recorded, monkeypatch):
    monkeypatch.setattr(cuda_replay, '_Recording', RECORDING)
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', lambda: None)
    monkeypatch.setattr(torch.cuda, 'device', lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, 'Stream', lambda _: None)

    def fail(*_, **__):
        raise RuntimeError('operation not permitted when stream is capturing')

    monkeypatch.setattr(torch.cuda, 'graph', fail)
    replay, x = Replay(), torch.ones(2)
    for _ in range(cuda_replay._CALLS_BEFORE):
        replay(torch.neg, (x,))
    message = 'DAAL_CUDA_GRAPHS=0 in the environment goes without graphs: operation not'
    with pytest.raises(RuntimeError, match=message):
        replay(torch.neg, (x,))


def test_a_copy_has_no_recordings(recorded):
    replay = Replay()
    for _ in range(5):
        replay(torch.neg, (torch.ones(2),))
    for other in (copy.deepcopy(replay), pickle.loads(pickle.dumps(replay))):
        assert (other._calls, other._recordings) == ({}, {})


def test_settings_are_the_public_constants_of_all_parts():
    loss = DAALLoss(num_classes=3, bnm_weight=0.05)
    before = settings_of(loss)
    loss._calls += 1
    assert settings_of(loss) == before
    for part, name in (
        (loss, 'bnm_weight'),
        (loss.proportion, 'trend_noise'),
        (loss.class_balance, 'tau'),
    ):
        setattr(part, name, 0.123)
        assert settings_of(loss) != before
        before = settings_of(loss)
    hash(before)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16])
def test_gradient_comes_with_the_value(recorded, dtype):
    def function(x, y):
        return (x.sin() * y).sum()

    replay, generator = Replay(), torch.Generator().manual_seed(0)
    for _ in range(6):
        x = torch.randn(5, generator=generator).to(dtype).requires_grad_()
        y = torch.randn(5, generator=generator)
        value = value_with_gradient(replay, function, x, (y,))
        (3 * value).backward()
        wanted = x.detach().double()
        tolerance = {torch.float64: 1e-7, torch.float32: 1e-6}.get(dtype, 2e-3)
        torch.testing.assert_close(
            value.double(), (wanted.sin() * y).sum(), rtol=tolerance, atol=tolerance
        )
        torch.testing.assert_close(
            x.grad.double(), 3 * wanted.cos() * y, rtol=tolerance, atol=tolerance
        )
    assert recorded.made == 1


def test_half_precision_keeps_a_gradient_that_amp_scales():
    x = torch.ones(2, dtype=torch.float16, requires_grad=True)
    value = value_with_gradient(Replay(), lambda x: 1e-9 * x.sum(), x)
    (2.0**20 * value).backward()
    torch.testing.assert_close(
        x.grad.float(), torch.full((2,), 1.049e-3), rtol=1e-3, atol=0
    )


def test_a_second_derivative_is_refused():
    x = torch.ones(2, requires_grad=True)
    value = value_with_gradient(Replay(), lambda x: x.square().sum(), x)
    with pytest.raises(RuntimeError, match='can not be differentiated twice'):
        torch.autograd.grad(value, x, create_graph=True)


@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_a_loss_that_replays_is_the_same_loss(use_sigmoid, recorded, monkeypatch):
    """Also with several calls an iteration, and when a setting changes on the way."""
    losses = [
        DAALLoss(
            use_sigmoid, num_classes=4, bnm_weight=0.05, bnm_method='newton_schulz'
        )
        for _ in range(2)
    ]
    generator = torch.Generator().manual_seed(0)
    for iteration in range(12):
        monkeypatch.setattr(
            adaptive_composition, 'current_iteration', lambda i=iteration: i
        )
        calls = [
            (
                torch.randn(9, 4 if use_sigmoid else 5, generator=generator),
                torch.randint(5, (9,), generator=generator),
            )
            for _ in range(2)
        ]
        found = []
        for loss, replays in zip(losses, (True, False), strict=True):
            loss.bnm_weight = 0.05 if iteration < 6 else 0.5
            leaves, values = [], []
            with monkeypatch.context() as patch:
                if not replays:
                    for module in (cuda_replay, adaptive_composition, bnm_loss):
                        patch.setattr(module, 'replayable', lambda tensor: False)
                for logits, labels in calls:
                    leaf = logits.clone().requires_grad_()
                    leaves.append(leaf)
                    values.append(loss(leaf, labels, torch.ones(9), avg_factor=3.0))
                sum(values).backward()
            found.append([*values, *(leaf.grad for leaf in leaves)])
        torch.testing.assert_close(*found)
    for ours, wanted in zip(*(loss.buffers() for loss in losses), strict=True):
        torch.testing.assert_close(ours, wanted)
    replayed = losses[0]
    assert len(replayed._replay_call._recordings) == 1
    # With each of the two weights.
    assert len(replayed._replay_iteration._recordings) == 2
    assert bnm_loss._replay._recordings


def test_a_bank_that_replays_is_the_same_bank(recorded, monkeypatch):
    banks = [CovarianceBank() for _ in range(2)]
    for bank in banks:
        bank.add_level(3, 4, 5)
        bank.add_level(3, 2, 2)
    generator = torch.Generator().manual_seed(0)
    for count in [7, 0, 60, 64, 65, 3, 100, 9, 70, 1, 128, 5]:
        slots = torch.randint(72, (count,), generator=generator)
        residuals = torch.randn(count, 4, generator=generator)
        found = []
        for bank, replays in zip(banks, (True, False), strict=True):
            monkeypatch.setattr(covariance_bank, 'replayable', lambda _, r=replays: r)
            before = bank.log_det(slots)
            bank.step(slots, residuals)
            found.append([before, bank.log_det(torch.arange(72))])
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    ours, wanted = (bank.state_dict() for bank in banks)
    for name in ('visits', 'mean', 'covariance', '_noise_sum', '_group_noise_count'):
        torch.testing.assert_close(ours[name], wanted[name], rtol=1e-5, atol=1e-6)
    # Steps of up to 64 and up to 128 rows, and look-ups of both.
    assert recorded.made == 4


@needs_gpu
def test_a_graph_does_what_the_function_does():
    state = torch.zeros(3, device='cuda')

    def function(x):
        state.add_(x)
        return state * 2

    replay, wanted = Replay(), torch.zeros(3)
    for number in range(8):
        x = torch.full((3,), float(number))
        wanted += x
        result = replay(function, (x.cuda(),), (state,))
        torch.testing.assert_close(result.cpu(), 2 * wanted)
    assert len(replay._recordings) == 1


@needs_gpu
def test_the_environment_switches_graphs_off(monkeypatch):
    x = torch.ones(3, device='cuda')
    assert cuda_replay.replayable(x)
    monkeypatch.setenv('DAAL_CUDA_GRAPHS', '0')
    assert not cuda_replay.replayable(x)
