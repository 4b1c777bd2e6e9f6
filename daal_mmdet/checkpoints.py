"""Which checkpoint of a work dir a resumed training goes on from."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

from mmengine.runner import CheckpointLoader

__all__ = ['Resumable', 'find_resumable', 'why_damaged']

# What a resume reads besides the weights.
_KEYS = ('state_dict', 'meta', 'message_hub', 'optimizer')


class Resumable(NamedTuple):
    """A checkpoint that a training can go on from.

    Attributes:
        path: The file.
        iteration: Iterations it has behind it.
        damaged: Files that would have been newer by their name or date but can't be
            read, each with the reason.
    """

    path: Path
    iteration: int
    damaged: dict[Path, str]


def find_resumable(work_dir: str | os.PathLike) -> Resumable | None:
    """Find the checkpoint with the most iterations that can be read in whole.

    mmengine resumes from the file that ``last_checkpoint`` names. A kill between the
    two writes leaves that pointer behind the newest checkpoint, one in the middle of
    its own leaves it empty, and a file may have suffered since. So every ``*.pth`` of
    the folder (and of the one that the pointer names, if it is another) is asked:
    its check sums must hold, it must load, and it must hold what a resume needs, which
    a file of weights alone (``best_*.pth``) does not. Files older than the named one
    are those of an earlier training in the same folder where they have more iterations:
    they are taken only if no other is sound.

    Args:
        work_dir: The folder of a training; need not be there.

    Returns:
        The checkpoint; None if there is no file to ask.

    Raises:
        ValueError: If there are files and none is sound; the message gives the reason
            for each. Starting anew would overwrite what may yet be saved.
    """
    folder = Path(work_dir)
    files = set(folder.glob('*.pth'))
    pointer = folder / 'last_checkpoint'
    since = 0.0
    if pointer.is_file():
        # Empty, or cut off, if the kill came while it was written.
        named = pointer.read_text(errors='replace').strip()
        if named and Path(named).parent.is_dir():
            files.update(Path(named).parent.glob('*.pth'))
            if Path(named).is_file():
                since = Path(named).stat().st_mtime
    damaged: dict[Path, str] = {}
    sound: list[tuple[int, float, Path]] = []
    for path in sorted(files):
        iteration = _iterations_of(path, damaged)
        if iteration is not None:
            sound.append((iteration, path.stat().st_mtime, path))
    if sound:
        current = [entry for entry in sound if entry[1] >= since]
        iteration, _, path = max(current or sound)
        return Resumable(path, iteration, damaged)
    if damaged:
        reasons = '; '.join(f'{path.name}: {why}' for path, why in damaged.items())
        raise ValueError(
            f'--resume: no checkpoint in {folder} can be read ({reasons}). Name a '
            'sound one, or move them away to start anew'
        )
    return None


def why_damaged(path: str | os.PathLike) -> str | None:
    """What is wrong with a checkpoint file; None if it can be read in whole."""
    checkpoint, reason = _read(Path(path))
    if reason is None and not isinstance(checkpoint, dict):
        reason = f'it holds no dict but {type(checkpoint).__name__}'
    return reason


def _iterations_of(path: Path, damaged: dict[Path, str]) -> int | None:
    """Iterations that a checkpoint has behind it; None if it can't be resumed from."""
    checkpoint, reason = _read(path)
    if reason is not None:
        damaged[path] = reason
        return None
    if not isinstance(checkpoint, dict) or not set(_KEYS) <= set(checkpoint):
        return None
    return int(checkpoint['meta']['iter'])


def _read(path: Path) -> tuple[object, str | None]:
    """What a checkpoint file holds, or why it can't be read."""
    try:
        # A file from before PyTorch 1.6 is no zip archive and has no check sums.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                spoilt = archive.testzip()
            if spoilt is not None:
                return None, f'the check sum of its part {spoilt} does not hold'
        return CheckpointLoader.load_checkpoint(str(path), map_location='cpu'), None
    # What a damaged pickle raises depends on where the damage is.
    except Exception as error:  # noqa: BLE001
        # PyTorch's texts go on with advice that does not fit a damaged file.
        said = str(error).partition('. ')[0]
        return None, f'it does not load ({type(error).__name__}: {said})'
