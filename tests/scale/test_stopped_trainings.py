"""What a training that can't go on leaves behind, and what it says."""

import builtins
import errno
import os

import pytest
import torch

from daal_mmdet.losses import DAALLoss
from daal_mmdet.losses.iteration_scalars import current_iteration


def nan_in(iteration):
    """Make the loss NaN, counted from 1."""
    forward = DAALLoss.forward

    def spoilt(self, *args, **kwargs):
        loss = forward(self, *args, **kwargs)
        return loss * float('nan') if current_iteration() == iteration - 1 else loss

    def prepare():
        DAALLoss.forward = spoilt

    return prepare


def test_nan_between_two_looks_at_the_loss_reaches_no_checkpoint(
    tiny_config, start_training, run_training, tmp_path
):
    # Two iterations an epoch, and a look every 50.
    config = tiny_config(4, 'custom_hooks[0]["interval"] = 50\n')
    work, log = tmp_path / 'work', tmp_path / 'log'
    process = start_training(log, config, '--work-dir', work, prepare=nan_in(5))
    process.join()
    assert process.exitcode != 0
    shown = log.read_text()
    assert 'Traceback' not in shown
    last = shown.splitlines()[-1]
    assert last.startswith('no checkpoint is written after iteration 6, since backbone')
    assert 'It began in iteration 5 with loss_cls (nan). ' in last
    assert f'The last good checkpoint is {work}/epoch_2.pth.' in last
    # mmengine removes the oldest of two before it writes the next.
    assert [path.name for path in work.glob('*.pth*')] == ['epoch_2.pth']
    # As the message says: go on from there.
    run_training(log, config, '--work-dir', work, '--resume', work / 'epoch_2.pth')
    final = torch.load(work / 'epoch_4.pth', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in final.values())


def test_a_class_that_is_not_there_stops_before_the_training(
    tiny_config, start_training, tmp_path
):
    config = tiny_config(
        1, "val_evaluator['groups'] = dict(_delete_=True, few=['owl'])\n"
    )
    work, log = tmp_path / 'work', tmp_path / 'log'
    process = start_training(log, config, '--work-dir', work)
    process.join()
    assert process.exitcode != 0
    shown = log.read_text()
    last = shown.splitlines()[-1]
    assert "groups: the data set has no class ['owl']; it has ['" in last
    assert 'Epoch(train)' not in shown


def full_disk(suffix, fits):
    """Let only so many files of that name be written."""
    real, left = builtins.open, [fits]

    def open_full(name, mode='r', *args, **options):
        if str(name).endswith(suffix) and 'w' in mode:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))
        return real(name, mode, *args, **options)

    def prepare():
        builtins.open = open_full

    return prepare


@pytest.mark.parametrize(
    ('suffix', 'message'),
    [
        (
            '.pth.partial',
            'could not write {work}/epoch_2.pth (No space left on device); no other '
            'file was touched. Make room or give the rights, and go on with --resume',
        ),
        (
            'last_checkpoint',
            'could not write {work}/last_checkpoint (No space left on device). Make '
            'room or give the rights, and go on with --resume',
        ),
    ],
)
def test_a_full_disk_ends_with_a_message_and_the_rest_resumes(
    tiny_config, start_training, run_training, tmp_path, suffix, message
):
    config = tiny_config(3)
    work, log = tmp_path / 'work', tmp_path / 'log'
    process = start_training(
        log, config, '--work-dir', work, prepare=full_disk(suffix, 1)
    )
    process.join()
    assert process.exitcode != 0
    shown = log.read_text()
    assert 'Traceback' not in shown
    assert shown.splitlines()[-1] == message.format(work=work)
    assert (work / 'epoch_1.pth').is_file()
    run_training(log, config, '--work-dir', work, '--resume')
    assert (work / 'epoch_3.pth').is_file()
