"""Checkpoints of a run that may have been killed while it wrote one."""

from __future__ import annotations

from pathlib import Path

from daal_mmdet.checkpoints import why_damaged

__all__ = ['latest_whole_checkpoint']


def latest_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that can be read.

    Args:
        folder: Work dir of a run: ``epoch_N.pth`` or ``iter_N.pth``.
    """

    def number(path: Path) -> int:
        return int(path.stem.split('_')[-1])

    found = [*folder.glob('epoch_*.pth'), *folder.glob('iter_*.pth')]
    for path in sorted(found, key=number, reverse=True):
        if why_damaged(path) is None:
            return path
    return None
