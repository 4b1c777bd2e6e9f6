"""Head points as the published crowd data sets store them in ``.mat`` files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

__all__ = [
    'inside_image',
    'move_inside',
    'read_shanghaitech_points',
    'read_ucf_cc_50_points',
]


def read_shanghaitech_points(path: str | Path) -> np.ndarray:
    """Read ``GT_IMG_N.mat`` of ShanghaiTech.

    MATLAB nests it as ``image_info{1}.location`` (n x 2), beside ``.number``.

    Returns:
        x and y of each head, (n, 2) float64. Pixel centres are at whole numbers and
        the first is (0, 0); MATLAB counts from 1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or laid out differently; the message names it.
    """
    return _read(path, 'image_info', _inner_location)


def read_ucf_cc_50_points(path: str | Path) -> np.ndarray:
    """Read ``N_ann.mat`` of UCF_CC_50: the matrix ``annPoints`` (n x 2).

    Returns, Raises: As :func:`read_shanghaitech_points`.
    """
    return _read(path, 'annPoints', np.asarray)


def inside_image(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which points, (n, 2), lie on a pixel of the image: (n,) bool."""
    x, y = points[:, 0], points[:, 1]
    return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)


def move_inside(
    points: np.ndarray, height: int, width: int, slack: float = 1.0
) -> np.ndarray:
    """Move points that lie just outside the image onto its border, drop the others.

    Both published sets have heads at the edge that were clicked a fraction of a pixel
    outside it, and UCF_CC_50 has two far away from theirs.

    Args:
        points: (n, 2), x and y; pixel centres are at whole numbers.
        height: Of the image, > 0.
        width: Of the image, > 0.
        slack: How far outside a point may lie to be kept, in pixels, >= 0.

    Returns:
        The kept points, (m, 2), all inside.
    """
    lowest, highest = np.array([-0.5, -0.5]), np.array([width, height]) - 0.5
    near = (points >= lowest - slack) & (points < highest + slack)
    kept: np.ndarray = np.clip(
        points[near.all(axis=1)], lowest, np.nextafter(highest, -np.inf)
    )
    return kept


def _read(
    path: str | Path, variable: str, unpack: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'points: there is no file {str(path)!r}')
    try:
        content = scipy.io.loadmat(str(path))
    # loadmat raises whatever the bytes lead it to: TypeError, struct.error, zlib.error.
    except Exception as error:
        raise ValueError(f'{path}: is no readable .mat file ({error})') from error
    if variable not in content:
        found = sorted(name for name in content if not name.startswith('__'))
        raise ValueError(f'{path}: expected the variable {variable!r}, found {found}')
    try:
        points = np.asarray(unpack(content[variable]), dtype=np.float64)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path}: {variable!r} is not nested as published ({error})'
        ) from error
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f'{path}: expected points of shape (n, 2), got {points.shape}')
    if not np.isfinite(points).all():
        raise ValueError(f'{path}: a point is not finite')
    return points - 1


def _inner_location(image_info: np.ndarray) -> np.ndarray:
    # A 1 x 1 cell of a 1 x 1 struct, as scipy nests them.
    return image_info[0, 0]['location'][0, 0]
