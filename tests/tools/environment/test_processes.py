"""Commands, their logs and their end."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from environment import processes, progress

ROOT = Path(__file__).resolve().parents[3]


def test_run_shows_the_end_of_the_log_of_what_failed(tmp_path):
    code = 'for i in range(40): print("line", i)\nraise SystemExit(3)'
    with pytest.raises(processes.SetupError) as caught:
        processes.run([sys.executable, '-c', code], tmp_path / 'log', tmp_path)
    text = str(caught.value)
    assert 'ended with code 3' in text
    assert str(tmp_path / 'log') in text
    assert 'line 39' in text
    assert 'line 25' in text
    assert 'line 24' not in text
    assert 'the same command again' in text


def test_run_drops_settings_that_mislead_pip(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', '/elsewhere')
    monkeypatch.setenv('PIP_USER', '1')
    monkeypatch.setenv('PIP_TARGET', '/elsewhere')
    code = (
        'import os; print([os.environ.get(n) for n in '
        '("PYTHONPATH", "PIP_USER", "PIP_TARGET", "CFLAGS")])'
    )
    log = tmp_path / 'log'
    processes.run([sys.executable, '-c', code], log, tmp_path, env={'CFLAGS': '-O2'})
    assert "[None, '0', None, '-O2']" in log.read_text()


def test_run_prints_progress_into_a_pipe(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, 'LINE_EVERY', 0)
    code = 'import time; print("[1/2] c++ ", flush=True); time.sleep(1.2)'
    processes.run(
        [sys.executable, '-c', code],
        tmp_path / 'log',
        tmp_path,
        lambda text, seconds: f'done {progress.compiled_files(text)}',
    )
    assert 'done (1, 2)' in capsys.readouterr().out


def test_interrupted_run_stops_the_children_of_the_child(tmp_path, monkeypatch):
    pid_file = tmp_path / 'pid'
    code = (
        'import subprocess, sys, time\n'
        'sleep = [sys.executable, "-c", "import time; time.sleep(60)"]\n'
        'child = subprocess.Popen(sleep)\n'
        f'open({str(pid_file)!r}, "w").write(str(child.pid))\n'
        'time.sleep(60)'
    )

    def interrupt(text, seconds):
        if pid_file.exists() and pid_file.read_text():
            raise KeyboardInterrupt
        return ''

    monkeypatch.setattr(processes, 'LINE_EVERY', 0)
    with pytest.raises(KeyboardInterrupt):
        processes.run([sys.executable, '-c', code], tmp_path / 'l', tmp_path, interrupt)
    stat = Path(f'/proc/{pid_file.read_text()}/stat')
    for _ in range(50):
        if not stat.exists() or stat.read_text().rsplit(')', 1)[1].split()[0] == 'Z':
            break
        time.sleep(0.1)
    else:
        pytest.fail('the grandchild is still running')


def test_second_setup_waits_for_the_first(tmp_path):
    code = (
        'import sys; from pathlib import Path; from environment import processes\n'
        f'with processes.only_one(Path({str(tmp_path)!r})): print("second in")'
    )
    with processes.only_one(tmp_path):
        second = subprocess.Popen(
            [sys.executable, '-c', code],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT / 'tools',
        )
        assert 'Another set-up is at work' in second.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=0.3)
    assert second.communicate(timeout=20)[0] == 'second in\n'


def test_ask_gives_none_for_what_does_not_answer(tmp_path):
    assert processes.ask([tmp_path / 'none'], tmp_path) is None
    assert processes.ask([sys.executable, '-c', 'print("no json")'], tmp_path) is None
    assert processes.ask([sys.executable, '-c', ''], tmp_path) is None
    assert processes.ask([sys.executable, '-c', 'print("x\\n[1]")'], tmp_path) == [1]
