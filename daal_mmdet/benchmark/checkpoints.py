"""Checkpoints of a run that may have been killed while it wrote one."""

from __future__ import annotations

import re
from pathlib import Path

from daal_mmdet.checkpoints import why_damaged

__all__ = ['latest_whole_checkpoint']


def latest_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that can be read.

    Args:
        folder: Work dir of a run: ``epoch_N.pth`` or ``iter_N.pth``. Files of other
            names, such as a copy, do not count.
    """
    numbers = {
        path: int(match[1])
        for path in folder.glob('*.pth')
        if (match := re.fullmatch(r'(?:epoch|iter)_(\d+)', path.stem))
    }
    for path in sorted(numbers, key=numbers.__getitem__, reverse=True):
        if why_damaged(path) is None:
            return path
    return None
