"""What tools/train.py says before it starts, and the commands that start it."""

import errno
import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
import test as test_tool
import torch
import train as train_tool
from mmengine.config import Config

from daal_mmdet.cli import build_runner
from daal_mmdet.hooks import FiniteCheckpointHook
from tests.test_checkpoints import save

TOOLS = Path(__file__).parents[2] / 'tools'


class Recorder:
    """Stands where the runner would."""

    def __init__(self):
        self.configs = []

    def __call__(self, config):
        self.configs.append(config)
        return self

    def train(self):
        pass


@pytest.fixture
def started(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(train_tool, 'build_runner', recorder)
    return recorder.configs


def test_resume_goes_on_from_the_newest_sound_checkpoint(
    tiny_config, started, tmp_path, capsys
):
    work = tmp_path / 'work'
    sound = save(work / 'epoch_1.pth', 2)
    broken = save(work / 'epoch_2.pth', 4)
    broken.write_bytes(broken.read_bytes()[:500])
    (work / 'last_checkpoint').write_text(str(broken))
    train_tool.main([str(tiny_config()), '--work-dir', str(work), '--resume'])
    (config,) = started
    assert config.resume
    assert config.load_from == str(sound)
    assert f'--resume: {broken} is left aside: it does not load' in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize('extra', ['', 'custom_hooks = []\n'])
def test_every_runner_looks_at_its_checkpoints(tiny_config, tmp_path, extra):
    config = Config.fromfile(tiny_config(extra=extra))
    config.work_dir = str(tmp_path / 'work')
    config.launcher = 'none'
    hooks = list(config.custom_hooks)
    runner = build_runner(config)
    assert [type(hook) for hook in runner.hooks].count(FiniteCheckpointHook) == 1
    # A config that is dumped says what it said before.
    assert runner.cfg.custom_hooks == hooks


def test_resume_of_nothing_starts_from_the_beginning(tiny_config, started, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'last_checkpoint').write_text(str(work / 'epoch_7.pth'))
    train_tool.main([str(tiny_config()), '--work-dir', str(work), '--resume'])
    (config,) = started
    assert not config.resume
    assert config.load_from is None


def test_resume_of_ruins_alone_does_not_overwrite_them(tiny_config, started, tmp_path):
    work = tmp_path / 'work'
    torch.save({}, save(work / 'epoch_1.pth', 2))
    (work / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(
        SystemExit, match=r'no checkpoint .* can be read \(epoch_1\.pth'
    ):
        train_tool.main([str(tiny_config()), '--work-dir', str(work), '--resume'])
    assert started == []


@pytest.mark.parametrize(
    'arguments', [['--resume', '{}'], ['--cfg-options', 'load_from={}']]
)
def test_a_damaged_checkpoint_is_named(tiny_config, started, tmp_path, arguments):
    path = save(tmp_path / 'epoch_1.pth', 2)
    path.write_bytes(path.read_bytes()[:500])
    given = [argument.format(path) for argument in arguments]
    work = ['--work-dir', str(tmp_path / 'work')]
    with pytest.raises(SystemExit, match=r"epoch_1\.pth.* can't be read: it does not"):
        train_tool.main([str(tiny_config()), *work, *given])
    with pytest.raises(SystemExit, match=r"checkpoint: .*can't be read: it does not"):
        test_tool.main([str(tiny_config()), str(path), *work])
    assert started == []


def test_weights_alone_are_not_resumed(tiny_config, started, tmp_path):
    """mmengine would go on with a fresh optimizer and the warm-up once more."""
    path = save(tmp_path / 'best_coco_bbox_mAP_epoch_1.pth', 2)
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint['optimizer']
    torch.save(checkpoint, path)
    work = ['--work-dir', str(tmp_path / 'work')]
    with pytest.raises(
        SystemExit,
        match=r"^--resume: the training can't go on from .*epoch_1\.pth: it lacks opti",
    ):
        train_tool.main([str(tiny_config()), *work, '--resume', str(path)])
    assert started == []


def test_a_work_dir_that_takes_no_file_is_named(
    tiny_config, started, tmp_path, monkeypatch
):
    def denied(dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    config = str(tiny_config())
    monkeypatch.setattr(tempfile, 'TemporaryFile', denied)
    with pytest.raises(
        SystemExit, match=r'^--work-dir: .*cannot be written to \(Read-only file system'
    ):
        train_tool.main([config, '--work-dir', str(tmp_path / 'work')])
    assert started == []


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A program of that name that writes down what it was called with."""

    def make(name, body=''):
        folder = tmp_path / 'bin'
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(
            f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > {tmp_path}/{name}.arguments\n'
            + body
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
        return lambda: (tmp_path / f'{name}.arguments').read_text().splitlines()

    return make


def shell(script, *arguments, **environment):
    return subprocess.run(
        [str(TOOLS / script), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_dist_train_starts_torchrun_on_one_node(stub):
    called = stub('python')
    done = shell('dist_train.sh', 'my config.py', '4', '--amp', '--cfg-options', 'a=1')
    assert done.returncode == 0, done.stderr
    assert called() == [
        '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '4',
        str(TOOLS / 'train.py'), 'my config.py', '--launcher', 'pytorch', '--amp',
        '--cfg-options', 'a=1',
    ]  # fmt: skip


def test_dist_train_joins_several_nodes(stub):
    called = stub('python')
    nodes = dict(NNODES='4', NODE_RANK='2', MASTER_ADDR='node0')
    assert shell('dist_train.sh', 'c.py', '8', **nodes).returncode == 0
    assert called()[2:12] == [
        '--nnodes', '4', '--node-rank', '2', '--master-addr', 'node0',
        '--master-port', '29500', '--nproc-per-node', '8',
    ]  # fmt: skip
    done = shell('dist_train.sh', 'c.py', '8', NNODES='4', NODE_RANK='2')
    assert done.returncode != 0
    assert 'MASTER_ADDR: the name of node 0' in done.stderr


def test_slurm_train_starts_one_torchrun_a_node(stub):
    python = stub('python')
    stub('scontrol', 'printf "node5\\nnode6\\n"')
    # What Slurm sets, and then the command behind the options.
    srun = stub(
        'srun',
        'export SLURM_NNODES=2 SLURM_NODEID=1 SLURM_JOB_NODELIST=node[5-6]\n'
        'while [ "$1" != bash ]; do shift; done\nexec "$@"\n',
    )
    done = shell(
        'slurm_train.sh', 'gpu', 'job', 'my config.py', '--resume',
        NODES='2', GPUS_PER_NODE='4', SRUN_ARGS='--time 2-0',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = srun()
    assert asked[asked.index('--nodes') + 1] == '2'
    assert asked[asked.index('--gres') + 1] == 'gpu:4'
    assert asked[asked.index('--time') + 1] == '2-0'
    # All of them are options of srun, as --requeue, of sbatch alone, is not.
    options = [word.partition('=')[0] for word in asked[: asked.index('bash')]]
    assert {option for option in options if option.startswith('-')} == {
        '--partition', '--job-name', '--nodes', '--ntasks-per-node', '--gres',
        '--cpus-per-task', '--kill-on-bad-exit', '--time',
    }  # fmt: skip
    assert python() == [
        '-m', 'torch.distributed.run', '--nnodes', '2', '--node-rank', '1',
        '--master-addr', 'node5', '--master-port', '29500', '--nproc-per-node', '4',
        str(TOOLS / 'train.py'), 'my config.py', '--launcher', 'pytorch', '--resume',
    ]  # fmt: skip


@pytest.mark.parametrize('script', ['dist_train.sh', 'slurm_train.sh'])
def test_commands_without_arguments_tell_their_usage(script):
    done = shell(script)
    assert done.returncode == 2
    assert done.stderr.startswith('usage: ')
