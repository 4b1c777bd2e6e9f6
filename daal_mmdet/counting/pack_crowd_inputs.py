"""Last step of a counting pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.structures import BaseDataElement

from daal_mmdet.counting.density_map import pool_density
from daal_mmdet.validation import check_number

__all__ = ['PackCrowdInputs']


@TRANSFORMS.register_module()
class PackCrowdInputs(BaseTransform):
    """Make the input of the model: a tensor, and a data sample with the truth.

    ``inputs`` is the image, (3, H, W) uint8. The sample holds ``gt_count``, the number
    of points; ``gt_points``, (n, 2) float32; and, if the pipeline loaded it,
    ``gt_density``, the map summed over blocks of stride x stride pixels.

    Args:
        stride: Pixels of the image to a cell of the model's map, >= 1.
        meta_keys: What of the results becomes metainfo of the sample, where it is.
    """

    def __init__(
        self,
        stride: int = 8,
        meta_keys: Sequence[str] = ('img_id', 'img_path', 'ori_shape', 'img_shape'),
    ) -> None:
        check_number('stride', stride, low=1, integer=True)
        self.stride = stride
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack."""
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        points = results['gt_points']
        sample = BaseDataElement(
            metainfo={key: results[key] for key in self.meta_keys if key in results},
            gt_count=len(points),
            gt_points=torch.from_numpy(points.astype(np.float32)),
        )
        if 'gt_density' in results:
            pooled = pool_density(results['gt_density'], self.stride)
            sample.gt_density = torch.from_numpy(pooled)
        return dict(inputs=torch.from_numpy(image), data_samples=sample)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(stride={self.stride}, meta_keys={self.meta_keys})'
        )
