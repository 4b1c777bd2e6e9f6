"""Transforms that change image, head points and density map together."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from daal_mmdet.counting.density_cache import DensityCache
from daal_mmdet.counting.points import inside_image
from daal_mmdet.validation import check_number

__all__ = [
    'LoadDensityMap',
    'RandomCrowdCrop',
    'RandomCrowdFlip',
    'RandomCrowdScale',
]


@TRANSFORMS.register_module()
class LoadDensityMap(BaseTransform):
    """Add the density map of the head points, ``gt_density``, (H, W) float32.

    It belongs behind the loading of the image and before any augmentation, so that it
    can be kept on disk.

    Args:
        kernel: 'adaptive' or 'fixed', see
            :func:`~daal_mmdet.counting.density_map.head_sigmas`, also for ``sigma``
            (pixels), ``beta``, ``neighbors`` and ``min_sigma`` (pixels).
        cache_dir: Folder to keep maps in, 4 bytes a pixel; None keeps none.

    Raises:
        TypeError, ValueError: If an argument is out of its range; while loading, if
            the image is not as large as its file says.
    """

    def __init__(
        self,
        kernel: str = 'adaptive',
        sigma: float = 15.0,
        beta: float = 0.3,
        neighbors: int = 3,
        min_sigma: float = 1.0,
        cache_dir: str | Path | None = None,
    ) -> None:
        options = dict(
            kernel=kernel,
            sigma=sigma,
            beta=beta,
            neighbors=neighbors,
            min_sigma=min_sigma,
        )
        self.maps = DensityCache(cache_dir, options)

    def transform(self, results: dict) -> dict:
        """Add ``gt_density``."""
        height, width = results['img'].shape[:2]
        if (height, width) != (results['height'], results['width']):
            # Something before it has resized the image, and not the points.
            raise ValueError(
                f'{results["img_path"]}: the file says {results["width"]} x '
                f'{results["height"]} pixels, it was loaded as {width} x {height}; '
                'the points belong to the former'
            )
        results['gt_density'] = self.maps(results['gt_points'], height, width)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(options={self.maps.options}, '
            f'cache_dir={self.maps.folder})'
        )


@TRANSFORMS.register_module()
class RandomCrowdCrop(BaseTransform):
    """Crop a random window out of image, points and map.

    Where the image is smaller than the window it stays whole in that direction. Heads
    near the edge leave part of their Gaussian behind, and those outside bring theirs
    in, so the map of a crop sums to the number of its points only about.

    Args:
        crop_size: Side in pixels, (height, width), or a share of each side of the image
            in (0, 1] as a float; CSRNet uses 0.5.

    Raises:
        TypeError, ValueError: If ``crop_size`` is none of these.
    """

    def __init__(self, crop_size: int | float | Sequence[int]) -> None:
        if isinstance(crop_size, Sequence) and not isinstance(crop_size, str):
            if len(crop_size) != 2:
                raise ValueError(
                    f'crop_size: expected (height, width), got {crop_size!r}'
                )
            for side in crop_size:
                check_number('crop_size', side, low=1, integer=True)
        elif isinstance(crop_size, Integral):
            check_number('crop_size', crop_size, low=1, integer=True)
            crop_size = (crop_size, crop_size)
        else:
            check_number('crop_size', crop_size, above=0, high=1)
        self.crop_size = crop_size

    def transform(self, results: dict) -> dict:
        """Crop."""
        height, width = results['img'].shape[:2]
        if isinstance(self.crop_size, float):
            rows, columns = (
                max(1, round(self.crop_size * side)) for side in (height, width)
            )
        else:
            rows, columns = (
                min(w, s) for w, s in zip(self.crop_size, (height, width), strict=True)
            )
        top = np.random.randint(height - rows + 1)
        left = np.random.randint(width - columns + 1)
        window = slice(top, top + rows), slice(left, left + columns)
        results['img'] = results['img'][window]
        results['img_shape'] = (rows, columns)
        points = results['gt_points'] - (left, top)
        results['gt_points'] = points[inside_image(points, rows, columns)]
        if 'gt_density' in results:
            results['gt_density'] = results['gt_density'][window]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop_size={self.crop_size})'


@TRANSFORMS.register_module()
class RandomCrowdFlip(BaseTransform):
    """Mirror image, points and map left to right.

    Args:
        prob: Probability in [0, 1].
    """

    def __init__(self, prob: float = 0.5) -> None:
        check_number('prob', prob, low=0, high=1)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Flip, or leave as it is."""
        if np.random.rand() >= self.prob:
            return results
        results['img'] = results['img'][:, ::-1]
        points = results['gt_points'].copy()
        width = results['img'].shape[1]
        # The left border, -0.5, belongs to the image and the right one does not.
        highest = np.nextafter(width - 0.5, -np.inf)
        points[:, 0] = np.minimum(width - 1 - points[:, 0], highest)
        results['gt_points'] = points
        if 'gt_density' in results:
            results['gt_density'] = results['gt_density'][:, ::-1]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class RandomCrowdScale(BaseTransform):
    """Resize image, points and map by one random factor; the map keeps its sum.

    A geometry-adaptive Gaussian scales with the distances, as it would if it were
    computed from the scaled points; one of fixed sigma is scaled too.

    Args:
        scale_range: Smallest and largest factor, > 0; uniform between them.

    Raises:
        TypeError, ValueError: If ``scale_range`` is not such a pair.
    """

    def __init__(self, scale_range: Sequence[float] = (0.8, 1.2)) -> None:
        if isinstance(scale_range, str) or len(scale_range) != 2:
            raise ValueError(
                f'scale_range: expected (smallest, largest), got {scale_range!r}'
            )
        smallest, largest = scale_range
        check_number('scale_range[0]', smallest, above=0)
        check_number('scale_range[1]', largest, low=smallest)
        self.scale_range = (smallest, largest)

    def transform(self, results: dict) -> dict:
        """Resize."""
        factor = np.random.uniform(*self.scale_range)
        height, width = results['img'].shape[:2]
        rows, columns = max(1, round(factor * height)), max(1, round(factor * width))
        results['img'] = mmcv.imresize(results['img'], (columns, rows))
        results['img_shape'] = (rows, columns)
        # Pixel centres are at whole numbers, the image's corner at (-0.5, -0.5).
        factors = np.array([columns / width, rows / height])
        points = (results['gt_points'] + 0.5) * factors - 0.5
        # The last half pixel may round up onto the border itself.
        highest = np.nextafter([columns - 0.5, rows - 0.5], -np.inf)
        results['gt_points'] = np.minimum(points, highest)
        if 'gt_density' in results:
            results['gt_density'] = _resize_map(results['gt_density'], rows, columns)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale_range={self.scale_range})'


def _resize_map(density: np.ndarray, rows: int, columns: int) -> np.ndarray:
    before = density.sum(dtype=np.float64)
    shrinks = rows <= density.shape[0] and columns <= density.shape[1]
    density = cv2.resize(
        np.ascontiguousarray(density),
        (columns, rows),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    after = density.sum(dtype=np.float64)
    return density if after == 0 else density * np.float32(before / after)
