"""Reading what MMEngine's ``LocalVisBackend`` logged during a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scalars:
    """Logged values of a run.

    Attributes:
        train: One entry for each logged iteration, in order; ``step`` holds the
            iteration.
        val: The last validation's values; empty before the first validation.
    """

    train: tuple[dict, ...]
    val: dict


def read_scalars(work_dir: Path) -> Scalars:
    """Read ``<work_dir>/<timestamp>/vis_data/scalars.json`` of a run.

    A resumed run has one file for each start; where they overlap the later one counts.
    A line that is still being written is left out. A folder without logs gives empty
    values.
    """
    train: dict[int, dict] = {}
    val: dict = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines(keepends=True):
            if not line.endswith('\n'):
                continue
            entry = json.loads(line)
            if 'loss' in entry:
                train[entry['step']] = entry
            else:
                val = entry
    return Scalars(tuple(train[step] for step in sorted(train)), val)
