"""Running the missing cells of a matrix, several at once, across kills."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daal_mmdet.benchmark.progress_file_hook import read_progress
from daal_mmdet.benchmark.single_run import PROGRESS, RESULT
from daal_mmdet.benchmark.spec import PlannedRun
from daal_mmdet.child_process import failure_message, threads_for, training_environment
from daal_mmdet.run_records import append_record, read_records

__all__ = ['ADOPTED', 'Failure', 'MatrixFolder', 'Running', 'run_matrix']

# File in the folder of a run that was trained elsewhere.
ADOPTED = 'adopted'
COMMAND = (sys.executable, '-m', 'daal_mmdet.benchmark.single_run')
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error.

    Attributes:
        run: The run.
        exit_code: Of its process.
        console_log: What the process printed.
    """

    run: PlannedRun
    exit_code: int
    console_log: Path

    def __str__(self) -> str:
        return failure_message(str(self.run), self.exit_code, self.console_log)


@dataclass(frozen=True)
class MatrixFolder:
    """Where runs and their records lie; several specs may share one.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def records_file(self) -> Path:
        """One line of JSON a finished run."""
        return self.root / 'runs.jsonl'

    def run_folder(self, run: PlannedRun) -> Path:
        """Work dir of a run."""
        return self.root / 'runs' / run.folder

    def progress(self, run: PlannedRun) -> float:
        """Share of an unfinished run's training that is behind it."""
        return read_progress(self.run_folder(run) / PROGRESS)

    def records(self) -> list[dict]:
        """All finished runs, of this and of other specs."""
        return read_records(self.records_file)

    def find(self, plan: Sequence[PlannedRun]) -> dict[PlannedRun, dict]:
        """Records of those runs of a plan that are finished.

        A run is known by the hash of its config and its seed. One whose result was not
        recorded before a kill is recorded now.
        """
        found = {(r.get('config'), r['seed']): r for r in self.records()}
        done = {}
        for run in plan:
            record = found.get((run.hash, run.seed))
            if record is None and (self.run_folder(run) / RESULT).is_file():
                record = self.record(run)
            if record is not None:
                # Another spec may call the same training by another name.
                done[run] = record | run.identity
        return done

    def record(self, run: PlannedRun) -> dict:
        """Read the result of a run and add it to the records."""
        folder = self.run_folder(run)
        result = json.loads((folder / RESULT).read_text(encoding='utf-8'))
        work_dir = str(folder.relative_to(self.root))
        record = run.identity | result | dict(work_dir=work_dir)
        if (folder / ADOPTED).is_file():
            # Nobody knows by which code and with how many threads it was trained.
            record |= dict(code=None, threads=None)
            record['adopted'] = (folder / ADOPTED).read_text(encoding='utf-8')
        # Another benchmark in this folder may have waited for the same run.
        append_record(self.records_file, record, keys=('config', 'seed'))
        return record


class Running:
    """A run in a process of its own.

    Args:
        run: What to run.
        folder: Its work dir.
        command: Called with a config and the folder.
        threads: CPU threads of the process.
    """

    def __init__(
        self, run: PlannedRun, folder: Path, command: Sequence[str], threads: int
    ) -> None:
        self.run = run
        self.folder = folder
        self.console_log = folder / 'console.log'
        planned = folder / 'planned'
        planned.mkdir(parents=True, exist_ok=True)
        run.config.dump(planned / 'config.py')
        arguments = [str(planned / 'config.py'), str(folder), '--exit-with-parent']
        arguments += ['--hash', run.hash]
        with self.console_log.open('a') as log:
            # Its input is a pipe that ends when this process does, however that ends.
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=training_environment(threads),
            )

    def poll(self) -> int | None:
        """Exit code of the process, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


def run_matrix(
    plan: Sequence[PlannedRun],
    folder: MatrixFolder,
    jobs: int = 1,
    threads: int | None = None,
    command: Sequence[str] = COMMAND,
    on_progress: Callable[[Sequence[Running], int, float], None] | None = None,
) -> tuple[list[dict], list[Failure]]:
    """Run what is not finished.

    A finished run is never repeated. An unfinished one goes on from its last
    checkpoint. One that fails is left for the next call, and the others go on. When
    this process ends, so do those that it started.

    Args:
        plan: The runs, in the order in which to start them.
        folder: Where they and their records lie.
        jobs: How many run at once.
        threads: CPU threads of each; None for :func:`threads_for`.
        command: Program that runs one; see :mod:`daal_mmdet.benchmark.single_run`.
        on_progress: Called several times a second with the running runs, the number of
            finished ones, failures included, and the share of the whole plan that is
            finished.

    Returns:
        A record of each run that is finished, in the order of the plan, and the
        failures.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    threads = threads_for(jobs) if threads is None else threads
    done = folder.find(plan)
    waiting = [run for run in plan if run not in done]
    running: list[Running] = []
    failures: list[Failure] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running.append(Running(run, folder.run_folder(run), command, threads))
            time.sleep(_POLL_SECONDS)
            for process in [p for p in running if p.poll() is not None]:
                running.remove(process)
                process.stop()
                if (process.folder / RESULT).is_file():
                    done[process.run] = folder.record(process.run)
                else:
                    failures.append(
                        Failure(process.run, process.poll(), process.console_log)
                    )
            if on_progress is not None:
                finished = len(done) + len(failures)
                unfinished = [*waiting, *(process.run for process in running)]
                share = finished + sum(map(folder.progress, unfinished))
                on_progress(running, finished, share / len(plan))
    finally:
        for process in running:
            process.stop()
    return [done[run] for run in plan if run in done], failures
