"""Density maps: one normalised Gaussian for each head."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from daal_mmdet.counting.points import inside_image
from daal_mmdet.validation import check_choice, check_number

__all__ = ['KERNELS', 'density_map', 'head_sigmas', 'pool_density']

KERNELS = ('adaptive', 'fixed')
# Beyond so many standard deviations a Gaussian is cut off.
_TRUNCATE = 4.0


def head_sigmas(
    points: np.ndarray,
    kernel: str = 'adaptive',
    sigma: float = 15.0,
    beta: float = 0.3,
    neighbors: int = 3,
    min_sigma: float = 1.0,
) -> np.ndarray:
    """Standard deviation of each head's Gaussian, in pixels.

    ::

        'adaptive'   sigma_i = beta * mean distance to the k nearest other heads
        'fixed'      sigma_i = sigma

    (Y. Zhang et al., "Single-image crowd counting via multi-column convolutional neural
    network", CVPR 2016, section 2.2; as in CSRNet beta = 0.3 and k = 3.) With fewer
    than k other heads those that are there count; a head alone gets ``sigma``. Heads at
    one place would get 0, so ``min_sigma`` bounds it from below.

    Args:
        points: (n, 2), pixels.
        kernel: 'adaptive' or 'fixed'.
        sigma: Of 'fixed', and of a head alone, > 0.
        beta: Factor of 'adaptive', > 0.
        neighbors: k, >= 1.
        min_sigma: Smallest value, > 0.

    Returns:
        (n,) float64.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """
    check_choice('kernel', kernel, KERNELS)
    check_number('sigma', sigma, above=0)
    check_number('beta', beta, above=0)
    check_number('neighbors', neighbors, low=1, integer=True)
    check_number('min_sigma', min_sigma, above=0)
    count = len(points)
    if kernel == 'fixed' or count < 2:
        return np.full(count, max(float(sigma), min_sigma))
    k = min(neighbors, count - 1)
    # The nearest is the head itself, or another at the same place: 0 either way.
    distances, _ = cKDTree(points).query(points, k=k + 1)
    return np.maximum(beta * distances[:, 1:].mean(axis=1), min_sigma)


def density_map(
    points: np.ndarray, sigmas: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Sum of Gaussians at the points, each of which sums to 1 *inside* the image.

    ::

        D(p) = sum_i  exp(-|p - p_i|^2 / (2 sigma_i^2)) / Z_i

    over pixel centres p within 4 sigma_i in x and in y, with Z_i the sum of the
    numerator over those that lie in the image. So the map sums to the number of points,
    also where a Gaussian crosses the border. CSRNet's published preparation leaves
    that part out, and rounds the points to pixels.

    Args:
        points: (n, 2) x and y; pixel centres are at whole numbers.
        sigmas: (n,), > 0, as :func:`head_sigmas` gives them.
        height: Of the image.
        width: Of the image.

    Returns:
        (height, width) float32; zeros for no points.

    Raises:
        ValueError: If the numbers of points and sigmas differ, or a point lies outside
            the image.
    """
    if points.shape != (len(sigmas), 2):
        raise ValueError(
            f'points: expected shape ({len(sigmas)}, 2), one for each of sigmas, got '
            f'{points.shape}'
        )
    inside = inside_image(points, height, width)
    if not inside.all():
        worst = points[np.argmin(inside)].tolist()
        raise ValueError(
            f'points: {worst} lies outside the image of width {width} and height '
            f'{height}'
        )
    density = np.zeros((height, width))
    for (x, y), sigma in zip(points, sigmas, strict=True):
        columns, along_x = _profile(x, sigma, width)
        rows, along_y = _profile(y, sigma, height)
        density[rows, columns] += np.outer(along_y, along_x)
    return density.astype(np.float32)


def _profile(center: float, sigma: float, size: int) -> tuple[slice, np.ndarray]:
    """Pixels that a Gaussian covers in one direction, and its values, of sum 1."""
    # The pixel that holds the centre is always among them.
    first = max(min(int(np.ceil(center - _TRUNCATE * sigma)), round(center)), 0)
    last = max(int(np.floor(center + _TRUNCATE * sigma)), round(center))
    last = min(last, size - 1)
    first = min(first, last)
    offsets = np.arange(first, last + 1) - center
    # The smallest exponent is taken out so that not all of them vanish.
    squares = np.square(offsets / sigma)
    values = np.exp(-0.5 * (squares - squares.min()))
    return slice(first, last + 1), values / values.sum()


def pool_density(density: np.ndarray, stride: int) -> np.ndarray:
    """Sum over blocks of ``stride`` x ``stride`` pixels, so that the sum stays.

    CSRNet's published code resizes with cubic interpolation and multiplies by 64, which
    keeps the sum only approximately.

    Args:
        density: (H, W).
        stride: Side of a block, >= 1; what lacks to whole blocks counts as zeros.

    Returns:
        (ceil(H / stride), ceil(W / stride)), of the dtype of ``density``.
    """
    height, width = density.shape
    rows, columns = -(-height // stride), -(-width // stride)
    padded = np.pad(
        density, ((0, rows * stride - height), (0, columns * stride - width))
    )
    blocks = padded.reshape(rows, stride, columns, stride)
    return blocks.sum(axis=(1, 3), dtype=np.float64).astype(density.dtype)
