"""Density maps on disk, so that each is computed once."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from daal_mmdet.counting.density_map import density_map, head_sigmas
from daal_mmdet.whole_file import write_whole

__all__ = ['DensityCache']

# Raised whenever the same points and options would give another map.
_FORMAT = 1


class DensityCache:
    """Computes the density map of an image, or reads the one computed before.

    A file is named after a hash of points, size and options, so a change of any of
    them can't bring back a stale map. Files are written aside and renamed: several
    processes may share a folder, and a kill leaves no half file. An unreadable file
    is computed again.

    Args:
        folder: Where to keep maps (4 bytes a pixel); made when first needed. None
            computes each map anew.
        options: Keyword arguments of
            :func:`~daal_mmdet.counting.density_map.head_sigmas`.
    """

    def __init__(self, folder: str | Path | None, options: dict) -> None:
        self.folder = None if folder is None else Path(folder)
        self.options = options
        # A misspelt or bad option should show at once, not with the first image.
        head_sigmas(np.zeros((2, 2)), **options)

    def __call__(self, points: np.ndarray, height: int, width: int) -> np.ndarray:
        """Density map of points, (n, 2), that lie in an image: (height, width)."""
        if self.folder is None:
            return self._compute(points, height, width)
        path = self.folder / f'{self._key(points, height, width)}.npy'
        found = _load(path, (height, width))
        if found is not None:
            return found
        density = self._compute(points, height, width)
        content = io.BytesIO()
        np.save(content, density)
        write_whole(path, content.getvalue())
        return density

    def _compute(self, points: np.ndarray, height: int, width: int) -> np.ndarray:
        return density_map(points, head_sigmas(points, **self.options), height, width)

    def _key(self, points: np.ndarray, height: int, width: int) -> str:
        text = json.dumps([_FORMAT, height, width, self.options], sort_keys=True)
        points = np.ascontiguousarray(points, np.float64)
        return hashlib.sha256(text.encode() + points.tobytes()).hexdigest()[:32]


def _load(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        # Mapped: a crop reads only what it needs.
        density: np.ndarray = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return density if density.shape == shape else None
