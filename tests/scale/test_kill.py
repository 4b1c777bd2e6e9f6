"""A training is killed again and again, resumed, and ends as if nothing had been.

KILLS=12 python -m pytest tests/scale/test_kill.py -s    runs the long form.
"""

import contextlib
import os
import random
import signal
import time

import pytest
import torch
from mmengine.runner import CheckpointLoader, checkpoint

KILLS = int(os.environ.get('KILLS', 2))


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def wait_for(condition, process):
    """Whether the condition came true while the process ran."""
    while process.is_alive():
        if condition():
            return True
        time.sleep(0.0002)
    return False


def half_written(work_dir):
    """Files in the middle of a write, each with the time of its last byte."""
    times = set()
    for path in work_dir.glob('*.partial'):
        with contextlib.suppress(FileNotFoundError):  # it just took its name
            times.add((path, path.stat().st_mtime_ns))
    return times


def newest(work_dir):
    return max(work_dir.glob('epoch_*.pth'), key=lambda p: int(p.stem.split('_')[1]))


def leaves(value, path=''):
    """Every tensor and number of a checkpoint, by its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f'{path}/{key}')
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from leaves(item, f'{path}/{i}')
    else:
        yield path, value


def differing(first, second, keys):
    a, b = (
        {k: dict(leaves(torch.load(path, weights_only=False)[k])) for k in keys}
        for path in (first, second)
    )
    return [
        (key, place)
        for key in keys
        for place in {*a[key], *b[key]}
        if not (
            torch.equal(a[key][place], b[key][place])
            if isinstance(a[key].get(place), torch.Tensor)
            else a[key].get(place) == b[key].get(place)
        )
    ]


def test_killed_training_ends_with_the_weights_of_the_unbroken_one(
    tiny_config, start_training, run_training, tmp_path
):
    epochs = 2 * KILLS + 2
    config = tiny_config(epochs)
    unbroken, broken = tmp_path / 'unbroken', tmp_path / 'broken'
    begin = time.monotonic()
    run_training(tmp_path / 'unbroken.log', config, '--work-dir', unbroken)
    an_epoch = (time.monotonic() - begin) / (epochs + 2)

    rng = random.Random(0)
    log = tmp_path / 'broken.log'
    kills = in_write = 0
    epochs_seen = []
    while True:
        # What an earlier kill left behind is no write of this start.
        left_behind = half_written(broken)
        process = start_training(log, config, '--work-dir', broken, '--resume')
        if kills == KILLS:
            process.join()
            break
        before = set(broken.glob('epoch_*.pth'))
        if kills % 2:
            # Once it trains, at any moment of the next two epochs.
            assert wait_for(
                lambda: set(broken.glob('epoch_*.pth')) - before,  # noqa: B023
                process,
            ), log.read_text()[-3000:]
            time.sleep(rng.uniform(0, 1.5 * an_epoch))
        else:
            # In the middle of a checkpoint write.
            assert wait_for(
                lambda: half_written(broken) - left_behind,  # noqa: B023
                process,
            ), log.read_text()[-3000:]
        assert process.is_alive(), 'it ended before it could be killed'
        kill(process)
        kills += 1
        in_write += bool(half_written(broken) - left_behind)
        saved = list(broken.glob('epoch_*.pth'))
        epochs_seen.append(int(newest(broken).stem.split('_')[1]) if saved else 0)

    assert process.exitcode == 0, log.read_text()[-3000:]
    print(
        f'\n{kills} kills, {in_write} of them in the middle of a checkpoint write, at '
        f'epochs {epochs_seen} of {epochs}; every resume went on'
    )
    assert in_write >= 1
    # It did go on, and not anew each time.
    assert epochs_seen == sorted(epochs_seen)
    assert epochs_seen[-1] > 0
    names = {path.name for path in unbroken.glob('*.pth')}
    assert {path.name for path in broken.glob('*.pth')} == names
    assert not list(broken.glob('*.partial'))
    keys = ('state_dict', 'optimizer', 'param_schedulers', 'kalman_covariance')
    final = f'epoch_{epochs}.pth'
    assert differing(unbroken / final, broken / final, keys) == []
    assert_loads_without_running_code(broken / final)


def assert_loads_without_running_code(path):
    """PyTorch's weights_only loader takes the file, and what is ours on its own."""
    ours = {
        key: value
        for key, value in torch.load(path, weights_only=False).items()
        if key in ('kalman_covariance', 'state_dict')
    }
    torch.save(ours, path.with_suffix('.ours'))
    assert (
        torch.load(path.with_suffix('.ours'), weights_only=True).keys() == ours.keys()
    )
    if not hasattr(checkpoint, 'get_torch_safe_globals'):
        return  # this mmengine loads all of it as pickle
    # It falls back to pickle after an UnpicklingError.
    with pytest.MonkeyPatch.context() as patch:
        asked, load = [], torch.load
        patch.setattr(
            torch,
            'load',
            lambda *a, **k: (asked.append(k['weights_only']), load(*a, **k))[1],
        )
        CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert asked == [True]
