"""Run commands with their output in a log and one live line on the screen."""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .progress import clock

LINE_EVERY = 30  # seconds between two lines where the output is no terminal
TAIL = 15  # lines of the log that an error shows

_locks: list[int] = []


class SetupError(Exception):
    """A step failed; the message says what is missing and what mends it."""


def say(text: str = '') -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def child_env(**extra: str) -> dict[str, str]:
    """Return the environment of child processes.

    Variables that make Python or pip look or write elsewhere are left out.
    """
    misleading = 'PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_ROOT'
    env = {k: v for k, v in os.environ.items() if k not in misleading}
    env.update(PIP_USER='0', PIP_NO_INPUT='1', PIP_DISABLE_PIP_VERSION_CHECK='1')
    env.update(extra)
    return env


def ask(command: Sequence[object], cwd: Path) -> Any:
    """Return the JSON in the last line that a command prints, None if there is none."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env=child_env(),
            cwd=cwd,
        )
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, IndexError, json.JSONDecodeError):
        return None


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder; wait where another set-up holds it.

    The children inherit it: should this process be killed outright, the next set-up
    waits for the pip that it left behind.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('Another set-up is at work in this folder; waiting until it ends.')
            fcntl.flock(lock, fcntl.LOCK_EX)
        _locks.append(lock)
        yield
    finally:
        _locks.clear()
        os.close(lock)


def stop(process: subprocess.Popen) -> None:
    """Stop a process and its children (pip, ninja, compilers)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=5)
            break
        except subprocess.TimeoutExpired:
            continue
    # pip may end before the compilers that it started.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(
    command: Sequence[object],
    log: Path,
    cwd: Path,
    describe: Callable[[str, float], str] | None = None,
    env: dict[str, str] | None = None,
) -> None:
    """Run a command; show one live line, or a line each half minute in a pipe.

    Args:
        command: The program and its arguments.
        log: File to which all output is appended.
        cwd: Directory to run in.
        describe: Makes the line from (output so far, seconds); default: the seconds
            and the last line of the output.
        env: Variables to set on top of ``child_env``.

    Raises:
        SetupError: It failed; the message ends with the last lines of the log.
    """
    words = [str(part) for part in command]
    with open(log, 'ab') as sink:
        sink.write(f'\n$ {shlex.join(words)}\n'.encode())
        sink.flush()
        start = sink.tell()
        # In a session of its own, so that Ctrl-C reaches it once, through stop().
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=child_env(**(env or {})),
            start_new_session=True,
            pass_fds=_locks,
        )
    try:
        _watch(process, log, start, describe)
    except BaseException:
        stop(process)
        raise
    if process.returncode:
        tail = [line[:300] for line in _read(log, start).splitlines()[-TAIL:]]
        raise SetupError(
            f'{shlex.join(words)[:300]}\nended with code {process.returncode}. '
            f'Last lines of {log}:\n\n' + '\n'.join(tail) + '\n\n'
            'Once the cause is mended (network, disk, compiler), give the same '
            'command again: it goes on from here.'
        )


def _read(log: Path, start: int) -> str:
    with open(log, 'rb') as source:
        source.seek(start)
        return source.read().decode(errors='replace')


def _watch(
    process: subprocess.Popen,
    log: Path,
    start: int,
    describe: Callable[[str, float], str] | None,
) -> None:
    live = sys.stdout.isatty()
    begin = printed = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        now = time.monotonic()
        if not live and now - printed < LINE_EVERY:
            continue
        printed, output = now, _read(log, start)
        if describe is not None:
            line = describe(output, now - begin)
        else:
            last = (output.strip().splitlines() or [''])[-1].strip()
            line = f'{clock(now - begin)}  {last}'
        width = shutil.get_terminal_size().columns - 6
        if live:
            print(f'\r    {line[:width]}\033[K', end='', flush=True)
        else:
            say(f'    {line[:width]}')
    if live:
        print('\r\033[K', end='', flush=True)
