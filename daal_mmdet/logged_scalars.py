"""Reading what MMEngine's ``LocalVisBackend`` logged during a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ['Scalars', 'read_scalars']


@dataclass(frozen=True)
class Scalars:
    """Logged values of a run.

    Attributes:
        train: One entry for each logged iteration, in order; ``step`` holds the
            iteration.
        validations: One entry for each validation, in order; ``step`` holds the epoch,
            or the iteration where the config counts those.
    """

    train: tuple[dict, ...]
    validations: tuple[dict, ...]

    @property
    def val(self) -> dict:
        """The last validation's values; empty before the first validation."""
        return self.validations[-1] if self.validations else {}


def read_scalars(work_dir: Path) -> Scalars:
    """Read ``<work_dir>/<timestamp>/vis_data/scalars.json`` of a run.

    A resumed run has one file for each start; where they overlap the later one counts.
    A line that is still being written is left out. A folder without logs gives empty
    values.
    """
    train: dict[int, dict] = {}
    validations: dict[int, dict] = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines(keepends=True):
            if not line.endswith('\n'):
                continue
            entry = json.loads(line)
            if 'loss' in entry:
                train[entry['step']] = entry
            else:
                validations[entry['step']] = entry
    return Scalars(
        *(
            tuple(logged[step] for step in sorted(logged))
            for logged in (train, validations)
        )
    )
