"""The set-up as a whole: order, recovery, mending; no network, no pip."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import setup_env
from environment import decisions, mmcv_wheel, processes
from environment.layout import Layout

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = {
    'pip': '24.0',
    'numpy': '2.2.6',
    'cv2': '4.12.0.88',
    'torch': '2.13.0+cpu',
    'mmcv': '2.3.6',
    'mmengine': '0.10.12',
    'mmdet': '3.5.1',
}
CPU = {'version': '2.13.0+cpu', 'cuda': None, 'nvcc': None, 'gpu': False}


def test_every_step_can_be_announced_and_made():
    steps = decisions.missing_steps(None, {}, 'abc', 'file:///checkout')
    assert list(setup_env.WHAT) == steps
    assert all(callable(getattr(setup_env.Setup, f'make_{step}')) for step in steps)


def test_tidy_removes_what_pip_left_half_done(tmp_path, capsys):
    for name in ('whole-1.0.dist-info', 'half-1.0.dist-info', '~umpy', 'numpy'):
        (tmp_path / name).mkdir()
    (tmp_path / 'whole-1.0.dist-info' / 'INSTALLER').write_text('pip\n')
    link = tmp_path / setup_env.REUSED_TORCH
    link.write_text('/usr/lib/python3/dist-packages\n')
    setup = setup_env.Setup(Layout(tmp_path), None, True, False)
    assert setup.tidy(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {'whole-1.0.dist-info', 'numpy', link.name}
    assert 'half-1.0.dist-info' in capsys.readouterr().out
    assert not setup.tidy(tmp_path)
    setup_env.Setup(Layout(tmp_path), None, False, False).tidy(tmp_path)
    assert not link.exists()


def test_damaged_stamp_counts_as_none(tmp_path):
    setup = setup_env.Setup(Layout(tmp_path), None, True, False)
    assert setup.stamp() == {}
    (tmp_path / '.venv').mkdir()
    setup.layout.stamp.write_text('{"inputs": ')
    assert setup.stamp() == {}


class FakeSetup(setup_env.Setup):
    """A set-up whose checks are given and whose pip only notes what it was told."""

    def __init__(self, tmp_path, results):
        super().__init__(Layout(tmp_path), None, True, False)
        self.results, self.said = list(results), []

    def check(self):
        return self.results.pop(0)

    def found(self):
        return {'versions': VERSIONS, 'python': [3, 11, 7], 'include': '/inc'}

    def facts(self):
        return CPU

    def pip(self, *arguments):
        self.said.append(' '.join(map(str, arguments)))

    def compile_mmcv(self, found, facts):
        self.compiled = True
        self.said.append('compile')


PASSED = {'passed': {'torch': '2.13.0'}, 'failed': None, 'error': '', 'mend': ''}
NO_OPS = {
    'passed': {},
    'failed': 'mmcv.ops',
    'error': "ModuleNotFoundError: No module named 'mmcv._ext'",
    'mend': 'make setup REBUILD_MMCV=1',
}
NO_LIBGL = {**NO_OPS, 'failed': 'cv2', 'error': 'ImportError: libGL.so.1: cannot open'}


def test_check_replaces_opencv_where_libgl_is_missing(tmp_path, capsys):
    setup = FakeSetup(tmp_path, [NO_LIBGL, PASSED])
    setup.make_check()
    assert setup.said == [
        'install --force-reinstall --no-deps opencv-python-headless==4.12.0.88'
    ]
    assert 'torch: 2.13.0' in capsys.readouterr().out


def test_check_mends_mmcv_from_a_wheel_before_it_compiles(tmp_path, monkeypatch):
    wheels = [tmp_path / 'first.whl', tmp_path / 'second.whl']
    monkeypatch.setattr(mmcv_wheel, 'candidates', lambda *_: wheels)
    setup = FakeSetup(tmp_path, [NO_OPS, PASSED])
    setup.wheel = wheels[0]  # the one that is installed, and does not run
    setup.make_check()
    assert setup.said == [f'install --force-reinstall --no-deps {wheels[1]}']


def test_check_compiles_mmcv_once_and_then_says_what_mends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(mmcv_wheel, 'candidates', lambda *_: [])
    setup = FakeSetup(tmp_path, [NO_OPS, NO_OPS])
    with pytest.raises(
        processes.SetupError,
        match=r"mmcv.ops does not work: .*'mmcv._ext'\nmake setup REBUILD_MMCV=1",
    ):
        setup.make_check()
    assert setup.said[-1] == 'compile'
    setup.results = [NO_OPS]
    with pytest.raises(processes.SetupError, match='mmcv.ops does not work'):
        setup.make_check()
    assert setup.said.count('compile') == 1


def test_torch_version_of_the_user_is_checked(capsys):
    assert setup_env.parse_args(['--torch', '2.12.0']).torch == '2.12.0'
    with pytest.raises(SystemExit):
        setup_env.parse_args(['--torch', 'latest'])
    assert "'latest' is not a version such as" in capsys.readouterr().err


def test_old_python_is_told_what_to_do():
    script = ROOT / 'tools' / 'setup_env.py'
    code = (
        'import sys; sys.version_info = (3, 9, 2)\n'
        f'exec(compile(open({str(script)!r}).read(), "setup_env.py", "exec"))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'Python >= 3.10 is needed' in done.stderr
    assert 'is Python 3.9. Name a newer one: make PYTHON=' in done.stderr


def test_an_environment_of_an_old_python_is_named(tmp_path, monkeypatch):
    old = {'python': [3, 9, 2], 'site': str(tmp_path), 'versions': VERSIONS}
    monkeypatch.setattr(setup_env.asking, 'probe', lambda python: old)
    setup = setup_env.Setup(Layout(tmp_path), None, True, False)
    with pytest.raises(processes.SetupError, match=r'\.venv is of Python 3\.9\.2, and'):
        setup.run()


def test_a_link_to_no_environment_is_named_and_kept(tmp_path):
    (tmp_path / '.venv').symlink_to('nowhere')
    setup = setup_env.Setup(Layout(tmp_path), None, True, False)
    with pytest.raises(processes.SetupError, match=r'is a link to nowhere, where no'):
        setup.make_venv()
    assert (tmp_path / '.venv').is_symlink()


def test_what_can_not_be_written_ends_with_a_message(tmp_path, monkeypatch, capsys):
    # In the place of the folder.
    (tmp_path / '.venv').touch()
    monkeypatch.setattr(setup_env, 'Layout', lambda root: Layout(tmp_path))
    monkeypatch.setattr(setup_env.decisions, 'inputs_hash', lambda root: '')
    monkeypatch.setattr(sys, 'argv', ['setup_env.py'])
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    assert setup_env.main() == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"Set-up stopped: [Errno 17] File exists: '{tmp_path / '.venv'}'"


def test_sigterm_ends_the_setup_like_ctrl_c(tmp_path):
    # A checkout of its own whose "python3" for the environment hangs in `-m venv`.
    code = (
        'import sys, time; import setup_env\n'
        'from environment.layout import Layout\n'
        'from pathlib import Path\n'
        f'setup_env.Layout = lambda root: Layout(Path({str(tmp_path)!r}))\n'
        'setup_env.Setup.run = lambda self: (print("at work", flush=True), '
        'time.sleep(60))\n'
        'sys.argv = ["setup_env.py"]; sys.exit(setup_env.main())'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT / 'tools',
    )
    assert process.stdout.readline() == 'at work\n'
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert 'Interrupted. The same command goes on from here.' in output
    assert process.returncode == 130
