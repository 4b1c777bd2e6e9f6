"""Runs checks in processes of their own, so that one that hangs or dies is a result."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from daal_mmdet.compatibility.model_check import CheckResult, check_model
from daal_mmdet.compatibility.shipped_configs import ShippedConfig

__all__ = ['run_checks']

_KILL_AFTER = 5.0

Check = Callable[[ShippedConfig], CheckResult]


@dataclass
class _Running:
    config: ShippedConfig
    process: BaseProcess
    pipe: Connection
    started: float


def run_checks(
    configs: Sequence[ShippedConfig],
    jobs: int = 1,
    time_limit: float = 300.0,
    check: Check = check_model,
) -> Iterator[CheckResult]:
    """Check configs, each in a process of its own.

    Args:
        configs: The configs.
        jobs: Processes at once, > 0.
        time_limit: Seconds after which a process is killed, > 0.
        check: What runs in the process.

    Yields:
        The results as they come. A process that took too long, or ended without one,
        gives a result that says so.
    """
    # A forked process has all modules; elsewhere than on Linux that is not safe.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('fork' if 'fork' in methods else 'spawn')
    waiting = list(reversed(configs))
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(context, check, waiting.pop()))
            first = min(task.started for task in running)
            patience = max(0.0, first + time_limit - time.monotonic())
            wait([task.pipe for task in running], timeout=patience)
            for task in list(running):
                result = _result(task, time_limit)
                if result is not None:
                    running.remove(task)
                    yield result
    finally:
        for task in running:
            _stop(task)


def _start(
    context: multiprocessing.context.BaseContext, check: Check, config: ShippedConfig
) -> _Running:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(check, config, theirs), daemon=True)
    process.start()
    # With no end of it open here, the death of the process ends the pipe.
    theirs.close()
    return _Running(config, process, ours, time.monotonic())


def _work(check: Check, config: ShippedConfig, pipe: Connection) -> None:
    torch.set_num_threads(1)
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 2)
        pipe.send(check(config))


def _result(task: _Running, time_limit: float) -> CheckResult | None:
    """Result of a task that has ended or must end, else None."""
    seconds = time.monotonic() - task.started
    if task.pipe.poll():
        try:
            result = task.pipe.recv()
        except EOFError:
            task.process.join()
            reason = f'its process died with exit code {task.process.exitcode}'
            result = CheckResult(task.config.name, 'fails', reason)
    elif seconds >= time_limit:
        reason = f'not finished after {time_limit:.0f} seconds'
        result = CheckResult(task.config.name, 'fails', reason)
    else:
        return None
    _stop(task)
    return result


def _stop(task: _Running) -> None:
    task.process.terminate()
    task.process.join(_KILL_AFTER)
    if task.process.is_alive():
        task.process.kill()
        task.process.join()
    task.pipe.close()
