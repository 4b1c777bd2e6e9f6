"""Training several configs at once, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from daal_mmdet.child_process import failure_message, threads_for, training_environment
from daal_mmdet.logged_scalars import read_scalars
from daal_mmdet.whole_file import write_whole

__all__ = ['Job', 'TrainingFailed', 'train_side_by_side']

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """A training to run.

    Attributes:
        name: Name for messages.
        config: The whole config; ``train_cfg`` must count iterations.
        work_dir: Folder of the run's config, logs, checkpoints and results.
        inputs: Files whose contents the result depends on besides the config.
    """

    name: str
    config: Config
    work_dir: Path
    inputs: tuple[Path, ...] = ()

    @property
    def max_iters(self) -> int:
        """Length of the training."""
        return int(self.config.train_cfg.max_iters)

    @property
    def config_file(self) -> Path:
        """The config as the training process reads it."""
        return self.work_dir / 'config.py'

    @property
    def console_log(self) -> Path:
        """Everything that the training process prints."""
        return self.work_dir / 'console.log'

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the config, of the inputs and of this package's code."""
        digest = hashlib.sha256(self.config.pretty_text.encode())
        package = Path(__file__).parents[1]
        for file in (*self.inputs, *sorted(package.rglob('*.py'))):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def state(self) -> str:
        """``'finished'``, ``'interrupted'`` or ``'new'``.

        A run with another fingerprint counts as new, and so does one without a
        checkpoint to go on from.
        """
        record = self.work_dir / 'job.json'
        if not record.is_file():
            return 'new'
        found = json.loads(record.read_text())
        if found['fingerprint'] != self.fingerprint:
            return 'new'
        if found['finished']:
            return 'finished'
        started = (self.work_dir / 'last_checkpoint').is_file()
        return 'interrupted' if started else 'new'

    def clear(self) -> None:
        """Delete what an earlier run left, and nothing but that.

        Raises:
            FileExistsError: If the folder holds files but no record of a run.
        """
        if not self.work_dir.exists():
            return
        if any(self.work_dir.iterdir()) and not (self.work_dir / 'job.json').is_file():
            raise FileExistsError(
                f'{self.work_dir} holds files that are no earlier run of this '
                'comparison: name another folder'
            )
        shutil.rmtree(self.work_dir)

    def reopen(self) -> None:
        """Go back before the last iteration of a run that has not been validated.

        A training that resumes at its end does nothing, the validation included.
        """
        if not read_scalars(self.work_dir).val:
            end = self.work_dir / f'iter_{self.max_iters}.pth'
            end.unlink(missing_ok=True)

    def record(self, *, finished: bool) -> None:
        """Note on disk whether the run is finished."""
        text = json.dumps(dict(fingerprint=self.fingerprint, finished=finished))
        write_whole(self.work_dir / 'job.json', text)


class TrainingFailed(RuntimeError):
    """A training process ended with an error."""


def train_side_by_side(
    jobs: Sequence[Job],
    train_script: Path,
    on_progress: Callable[[dict[str, int], dict[str, float]], None],
) -> None:
    """Run ``train_script CONFIG`` for all jobs at once and wait.

    Small models leave cores idle when they run with several threads, so one process a
    job with its share of the cores ends sooner than one job after the other. Output
    goes to ``console.log`` in each job's folder. On an interrupt or when a job fails,
    the other processes are ended too.

    Args:
        jobs: Trainings to start; each is resumed if an earlier run of the same
            fingerprint was interrupted.
        train_script: A script with the interface of mmdet's ``tools/train.py``.
        on_progress: Called about twice a second with the iteration that each job has
            reached and its last logged loss, by name.

    Raises:
        TrainingFailed: If a process fails; the text shows the end of its log.
    """
    threads = threads_for(len(jobs))
    processes: dict[str, subprocess.Popen] = {}
    try:
        for job in jobs:
            processes[job.name] = _start(job, train_script, threads)
        while True:
            running = [p for p in processes.values() if p.poll() is None]
            _report(jobs, on_progress)
            _raise_on_failure(jobs, processes)
            if not running:
                break
            time.sleep(_POLL_SECONDS)
    finally:
        _stop(processes.values())
    for job in jobs:
        job.record(finished=True)


def _start(job: Job, train_script: Path, threads: int) -> subprocess.Popen:
    resume = job.state() == 'interrupted'
    if resume:
        job.reopen()
    else:
        job.clear()
    job.work_dir.mkdir(parents=True, exist_ok=True)
    job.config.dump(job.config_file)
    job.record(finished=False)
    command = [
        sys.executable,
        str(train_script),
        str(job.config_file),
        '--work-dir',
        str(job.work_dir),
    ] + ['--resume'] * resume
    environment = training_environment(threads) | {'PYTHONUNBUFFERED': '1'}
    with open(job.console_log, 'a' if resume else 'w') as log:
        # A session of its own, so that data loading workers can be ended with it.
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )


def _report(
    jobs: Sequence[Job], on_progress: Callable[[dict[str, int], dict[str, float]], None]
) -> None:
    iterations: dict[str, int] = {}
    losses: dict[str, float] = {}
    for job in jobs:
        train = read_scalars(job.work_dir).train
        iterations[job.name] = train[-1]['step'] if train else 0
        if train:
            losses[job.name] = train[-1]['loss']
    on_progress(iterations, losses)


def _raise_on_failure(
    jobs: Sequence[Job], processes: dict[str, subprocess.Popen]
) -> None:
    for job in jobs:
        code = processes[job.name].poll()
        if code:
            raise TrainingFailed(
                failure_message(f'training of {job.name}', code, job.console_log)
            )


def _stop(processes: Iterable[subprocess.Popen]) -> None:
    running = [process for process in processes if process.poll() is None]
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
    for process in running:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
