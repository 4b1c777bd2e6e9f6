"""What is common to starting trainings as processes of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ['failure_message', 'threads_for', 'training_environment']

_LOG_TAIL_LINES = 15


def threads_for(processes: int, environment: Mapping[str, str] = os.environ) -> int:
    """CPU threads of each of several processes: their share of the cores, at least 1.

    ``OMP_NUM_THREADS`` is an upper limit.
    """
    usable = (
        len(os.sched_getaffinity(0))
        if hasattr(os, 'sched_getaffinity')
        else os.cpu_count() or 1
    )
    share = max(1, usable // processes)
    limit = environment.get('OMP_NUM_THREADS', '')
    return min(share, int(limit)) if limit.isdigit() and int(limit) > 0 else share


def training_environment(threads: int) -> dict[str, str]:
    """This process's environment for a training on a number of CPU threads.

    PyTorch asks there for huge pages, unless the environment says otherwise: a step on
    a CPU allocates most of its memory anew, and the first touch of a page costs time.
    """
    names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
    huge_pages = {'THP_MEM_ALLOC_ENABLE': '1'}
    return huge_pages | os.environ | dict.fromkeys(names, str(threads))


def failure_message(name: str, exit_code: int, console_log: Path) -> str:
    """Tell that a process failed, with the last lines of what it printed."""
    tail = console_log.read_text(errors='replace').splitlines()[-_LOG_TAIL_LINES:]
    heading = f'{name} ended with exit code {exit_code}; the end of {console_log}:'
    return '\n'.join([heading, *tail])
