"""Generated crowds with exact points, in the layouts of the published sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
import scipy.io
from numpy.random import Generator

from daal_mmdet.validation import check_number

__all__ = ['draw_crowd', 'write_shanghaitech_layout', 'write_ucf_cc_50_layout']

# Radius of a head at the top and at the bottom edge, as a share of the height.
_FAR, _NEAR = 1 / 64, 1 / 20
# cv2 takes whole numbers; this many bits of a coordinate are its fraction.
_SHIFT = 4
_SKIN = np.array([140.0, 175.0, 230.0])


def draw_crowd(
    rng: Generator, count: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw heads that grow towards the lower edge, each with a body below it.

    Args:
        rng: Source of all random numbers.
        count: Number of heads, >= 0.
        height: Of the image, > 0.
        width: Of the image, > 0.

    Returns:
        The image, (height, width, 3) uint8 BGR, and the centres of the heads, (count,
        2), x and y with pixel centres at whole numbers. Heads may hide one another.

    Raises:
        TypeError, ValueError: If a number is out of its range.
    """
    check_number('count', count, low=0, integer=True)
    check_number('height', height, low=1, integer=True)
    check_number('width', width, low=1, integer=True)
    ground = np.linspace(0.6, 1.0, height)[:, None, None] * rng.uniform(90, 170, 3)
    image = ground + rng.normal(0, 8, (height, width, 3))
    image = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    # Denser in the distance, where the ground recedes.
    depth = np.sort(rng.beta(1.2, 2.0, count))
    points = np.stack(
        [rng.uniform(-0.5, width - 0.5, count), depth * height - 0.5], axis=1
    )
    for (x, y), share in zip(points, depth, strict=True):
        radius = height * (_FAR + (_NEAR - _FAR) * share)
        clothes, skin = rng.uniform(0, 255, 3), rng.uniform(0.35, 1) * _SKIN
        _disc(image, x, y + 2.2 * radius, 1.7 * radius, clothes)
        _disc(image, x, y, radius, skin)
    return image, points


def _disc(
    image: np.ndarray, x: float, y: float, radius: float, color: np.ndarray
) -> None:
    center = (round(x * 2**_SHIFT), round(y * 2**_SHIFT))
    cv2.circle(
        image,
        center,
        max(1, round(radius * 2**_SHIFT)),
        color.tolist(),
        thickness=-1,
        lineType=cv2.LINE_AA,
        shift=_SHIFT,
    )


def write_shanghaitech_layout(
    root: str | Path,
    train: Sequence[int],
    test: Sequence[int],
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Write scenes as ShanghaiTech's archives hold them, for one part.

    Args:
        root: Folder of the part; made if needed.
        train: Number of heads of each training image.
        test: Number of heads of each test image.
        size: Height and width.
        seed: Of everything.

    Returns:
        Points of each image by ``'train/IMG_1'`` and so on, as :func:`draw_crowd`.
    """
    rng = np.random.default_rng(seed)
    written = {}
    for split, counts in (('train', train), ('test', test)):
        images = Path(root) / f'{split}_data' / 'images'
        truth = Path(root) / f'{split}_data' / 'ground-truth'
        truth.mkdir(parents=True, exist_ok=True)
        for number, count in enumerate(counts, 1):
            image, points = draw_crowd(rng, count, *size)
            mmcv.imwrite(image, str(images / f'IMG_{number}.jpg'))
            location = np.zeros((1, 1), [('location', object), ('number', object)])
            location[0, 0] = (points + 1, np.array([[count]]))
            cell = np.empty((1, 1), object)
            cell[0, 0] = location
            scipy.io.savemat(truth / f'GT_IMG_{number}.mat', {'image_info': cell})
            written[f'{split}/IMG_{number}'] = points
    return written


def write_ucf_cc_50_layout(
    root: str | Path,
    counts: Sequence[int],
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Write scenes as UCF_CC_50's archive holds them: ``N.jpg`` and ``N_ann.mat``.

    Args:
        root: Folder; made if needed.
        counts: Number of heads of each image, 50 for a whole set.
        size: Height and width.
        seed: Of everything.

    Returns:
        Points of each image by ``'N'``, as :func:`draw_crowd`.
    """
    rng = np.random.default_rng(seed)
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    written = {}
    for number, count in enumerate(counts, 1):
        image, points = draw_crowd(rng, count, *size)
        mmcv.imwrite(image, str(root / f'{number}.jpg'))
        scipy.io.savemat(root / f'{number}_ann.mat', {'annPoints': points + 1})
        written[str(number)] = points
    return written
