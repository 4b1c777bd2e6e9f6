import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from torch import nn

from daal_mmdet.hooks.finite_checkpoint_hook import NotFiniteError


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.register_buffer('mask', torch.tensor([0.0, -math.inf]))
        self.register_buffer('count', torch.tensor(3))


@pytest.fixture
def run(tmp_path):
    """A runner in the middle of a training, and its hook."""
    hook = HOOKS.build({'type': 'FiniteCheckpointHook'})
    runner = SimpleNamespace(
        model=Model(), message_hub=MessageHub('test'), iter=0, work_dir=str(tmp_path)
    )
    hook.before_train(runner)

    def step(*losses, **parts):
        for loss in losses:
            runner.message_hub.update_scalar('train/loss', loss)
            for name, value in parts.items():
                runner.message_hub.update_scalar(f'train/{name}', value)
            runner.iter += 1

    def save(**more):
        checkpoint = {
            'meta': {'iter': runner.iter},
            'state_dict': runner.model.state_dict(),
            **more,
        }
        hook.before_save_checkpoint(runner, checkpoint)

    return SimpleNamespace(runner=runner, hook=hook, step=step, save=save)


def spoil(tensor, value=math.nan):
    with torch.no_grad():
        tensor.view(-1)[0] = value


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(run, value):
    run.step(0.5, 0.4)
    run.save()
    run.step(0.3)
    spoil(run.runner.model.second.bias, value)
    with pytest.raises(
        NotFiniteError,
        match=r'^no checkpoint is written after iteration 3, since second\.bias is not '
        r'finite\. All losses since iteration 2 were\. There is no checkpoint before '
        r'it\. Lower the learning rate$',
    ):
        run.save()


def test_the_message_says_where_it_began_and_what_is_left(run, tmp_path):
    last = tmp_path / 'epoch_1.pth'
    last.touch()
    (tmp_path / 'last_checkpoint').write_text(str(last))
    run.step(0.5, loss_cls=0.2, loss_bbox=0.3)
    run.save()
    run.step(math.inf, loss_cls=0.2, loss_bbox=math.inf)
    run.step(math.nan, loss_cls=math.nan, loss_bbox=math.nan)
    for parameter in run.runner.model.parameters():
        spoil(parameter)
    with pytest.raises(
        NotFiniteError,
        match=r'after iteration 3, since first\.weight, first\.bias, second\.weight '
        r'and 1 more are not finite\. It began in iteration 2 with loss_bbox '
        r'\(inf\)\. The last good checkpoint is .*epoch_1\.pth\. Lower the learning '
        r'rate or clip the gradients, and go on with --resume .*epoch_1\.pth$',
    ):
        run.save()


def test_a_checkpoint_of_an_earlier_training_is_no_way_on(run, tmp_path):
    last = tmp_path / 'epoch_9.pth'
    last.touch()
    (tmp_path / 'last_checkpoint').write_text(str(last))
    run.step(math.nan)
    with pytest.raises(NotFiniteError, match='There is no checkpoint before it'):
        run.save()
    # Of a resumed one it is.
    run.hook.before_train(run.runner)
    run.step(math.nan)
    with pytest.raises(NotFiniteError, match=r'last good checkpoint is .*epoch_9\.pth'):
        run.save()


def test_a_loss_that_is_not_finite_now_is_refused(run):
    run.step(0.5)
    run.step(math.nan)
    with pytest.raises(
        NotFiniteError,
        match=r'after iteration 2, since loss \(nan\) is not finite\. It began in '
        r'iteration 2 with loss \(nan\)\.',
    ):
        run.save()


def test_a_resumed_run_looks_back_to_its_start(run):
    """The log that a resume restores may hold what the run before overcame."""
    run.step(math.nan, 0.5)
    run.hook.before_train(run.runner)
    run.step(math.nan)
    with pytest.raises(NotFiniteError, match='It began in iteration 3 with loss'):
        run.save()


def test_scalars_beside_the_losses_are_not_the_cause(run):
    """KalmanCovarianceHook's log-determinant is NaN where there was no box yet."""
    beside = {
        'kalman_rpn_head_log_det_0': math.nan,
        'daal_head.aux_gain': math.nan,
    }
    run.step(0.5, loss_cls=0.2, **beside)
    run.save()
    run.step(math.nan, loss_cls=math.nan, **beside)
    with pytest.raises(
        NotFiniteError,
        match=r'since loss_cls \(nan\) is not finite\. It began in iteration 2 with '
        r'loss_cls \(nan\)\.',
    ):
        run.save()


def test_a_step_that_was_left_out_spoils_nothing(run):
    """The scaler of mixed precision leaves such steps out."""
    run.step(0.5, math.inf, 0.4)
    run.save()


def test_infinite_buffers_may_be_meant_and_nan_is_not(run):
    run.step(0.5)
    run.save()
    spoil(run.runner.model.mask)
    with pytest.raises(NotFiniteError, match='since mask is not finite'):
        run.save()


def test_averaged_weights_are_looked_at_too(run):
    run.step(0.5)
    averaged = {
        f'module.{name}': value.clone()
        for name, value in run.runner.model.state_dict().items()
    }
    run.save(ema_state_dict={'steps': torch.tensor(1), **averaged})
    spoil(averaged['module.first.weight'])
    with pytest.raises(
        NotFiniteError, match=r'since module\.first\.weight \(of ema_state_dict\) is'
    ):
        run.save(ema_state_dict=averaged)


def test_iterations_are_counted_on_after_a_resume(run):
    run.step(*[0.5] * 6)
    # The log of what went before may be lost: a checkpoint that is only loaded.
    run.runner.message_hub = MessageHub('other')
    run.hook.before_train(run.runner)
    run.step(0.5, math.nan)
    spoil(run.runner.model.first.bias)
    with pytest.raises(
        NotFiniteError, match='after iteration 8, .*It began in iteration 8 '
    ):
        run.save()


def test_it_looks_after_the_averaging_hook():
    hooks = [HOOKS.build({'type': t}) for t in ('FiniteCheckpointHook', 'EMAHook')]
    assert hooks[0].priority == 'LOWEST'
    assert hooks[1].priority == 'NORMAL'
