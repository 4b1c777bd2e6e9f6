"""Which checkpoint of a work dir a resumed training goes on from."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

from mmengine.runner import CheckpointLoader

__all__ = ['Resumable', 'find_resumable', 'why_damaged', 'why_not_resumable']

# What a resume reads; a file of weights alone (``best_*.pth``) lacks the last.
_KEYS = ('state_dict', 'meta', 'message_hub')
_OPTIMIZER = 'optimizer'


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
    the folder is asked: its check sums must hold, it must load, and it must hold what a
    resume needs, which a file of weights alone (``best_*.pth``) does not. The folder
    that the pointer names (the checkpoint hook's ``out_dir``; or, in a copy of a work
    dir, the original) is asked only where this one has none to go on from. Files older
    than the named one are those of an earlier training in the same folder where they
    have more iterations: they are taken only if no other is sound.

    Args:
        work_dir: The folder of a training; need not be there.

    Returns:
        The checkpoint; None if there is no file to go on from.

    Raises:
        ValueError: If no file is sound and some are damaged, with the reason for each,
            or the named one has no optimizer. Starting anew would overwrite what may
            yet be saved.
    """
    folder = Path(work_dir)
    pointer = folder / 'last_checkpoint'
    # Empty, or cut off, if the kill came while it was written.
    named = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    places = [folder]
    elsewhere = Path(named).parent
    if named and elsewhere.is_dir() and elsewhere.resolve() != folder.resolve():
        places.append(elsewhere)
    damaged: dict[Path, str] = {}
    weights_alone: list[Path] = []
    for place in places:
        found = _newest_in(place, Path(named).name, damaged, weights_alone)
        if found is not None:
            return Resumable(*found, damaged)
    if damaged:
        reasons = '; '.join(f'{path.name}: {why}' for path, why in damaged.items())
        raise ValueError(
            f'--resume: no checkpoint in {folder} can be read ({reasons}). Name a '
            'sound one, or move them away to start anew'
        )
    if Path(named).name in {path.name for path in weights_alone}:
        raise ValueError(
            f'--resume: {named} has no optimizer (save_optimizer=False in the '
            "checkpoint hook?), so the training can't go on from it. load_from starts "
            'one with its weights; move it away to start anew'
        )
    return None


def why_damaged(path: str | os.PathLike) -> str | None:
    """What is wrong with a checkpoint file; None if it can be read in whole."""
    checkpoint, reason = _read(Path(path))
    if reason is None and not isinstance(checkpoint, dict):
        reason = f'it holds no dict but {type(checkpoint).__name__}'
    return reason


def why_not_resumable(path: str | os.PathLike) -> str | None:
    """Why a training can't go on from a checkpoint file; None if it can."""
    checkpoint, reason = _read(Path(path))
    if reason is not None:
        return f"it can't be read: {reason}"
    kept = set(checkpoint) if isinstance(checkpoint, dict) else set()
    missing = [key for key in (*_KEYS, _OPTIMIZER) if key not in kept]
    if not missing:
        return None
    return f'it lacks {", ".join(missing)}; load_from starts one with its weights'


def _newest_in(
    folder: Path, named: str, damaged: dict[Path, str], weights_alone: list[Path]
) -> tuple[Path, int] | None:
    """The file of a folder to go on from, and its iterations; others are noted."""
    since = (folder / named).stat().st_mtime if (folder / named).is_file() else 0.0
    sound: list[tuple[int, float, Path]] = []
    for path in sorted(folder.glob('*.pth')):
        checkpoint, reason = _read(path)
        if reason is not None:
            damaged[path] = reason
        elif isinstance(checkpoint, dict) and set(_KEYS) <= set(checkpoint):
            if _OPTIMIZER in checkpoint:
                iteration = int(checkpoint['meta']['iter'])
                sound.append((iteration, path.stat().st_mtime, path))
            else:
                weights_alone.append(path)
    if not sound:
        return None
    current = [entry for entry in sound if entry[1] >= since]
    iteration, _, path = max(current or sound)
    return path, iteration


def _read(path: Path) -> tuple[object, str | None]:
    """What a checkpoint file holds, or why it can't be read."""
    if path.is_dir():
        return None, 'it is a folder, as DeepSpeed writes; this tool reads files'
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
