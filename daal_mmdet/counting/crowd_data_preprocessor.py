"""From a batch of images and samples to what a counting model takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import ImgDataPreprocessor

from daal_mmdet.validation import check_number

__all__ = ['CrowdDataPreprocessor']


@MODELS.register_module()
class CrowdDataPreprocessor(ImgDataPreprocessor):
    """Normalise images, and pad them and their density maps to one size.

    Images are padded at the right and at the bottom, after normalisation, so with the
    mean colour, to a multiple of ``stride``; maps with zeros. ``map_shape`` in the
    sample's metainfo says how many rows and columns of the map belong to the image;
    beyond them the model neither learns nor counts. Its layers see the padding, though,
    so that cells near it differ from those of the image alone: evaluate images of
    several sizes one by one, as the configs do.

    Args:
        mean: Of the channels, in the order after ``bgr_to_rgb``, in 0 to 255.
        std: Their standard deviations.
        bgr_to_rgb: Whether to exchange the first and the last channel.
        stride: Pixels to a cell of the map, >= 1.
        channels_last: Whether a batch lies in memory with its channels last. The
            convolutions keep that layout; on a CPU a narrow CSRNet takes about
            three quarters of the time with it.
        non_blocking: See :class:`mmengine.model.ImgDataPreprocessor`.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = (123.675, 116.28, 103.53),
        std: Sequence[float] | None = (58.395, 57.12, 57.375),
        bgr_to_rgb: bool = True,
        stride: int = 8,
        channels_last: bool = False,
        non_blocking: bool = False,
    ) -> None:
        check_number('stride', stride, low=1, integer=True)
        super().__init__(
            mean=mean,
            std=std,
            pad_size_divisor=stride,
            bgr_to_rgb=bgr_to_rgb,
            non_blocking=non_blocking,
        )
        self.stride = stride
        self.channels_last = channels_last

    def forward(self, data: dict, training: bool = False) -> dict:
        """Process a batch.

        Args:
            data: ``inputs``, B images (3, H_i, W_i) uint8, and ``data_samples``.
            training: Not used; the processing is the same.

        Returns:
            ``inputs``, (B, 3, H, W) float32, and the samples, whose ``gt_density`` has
            become (H / stride, W / stride).

        Raises:
            ValueError: If a map does not fit its image.
        """
        sizes = [tuple(image.shape[-2:]) for image in data['inputs']]
        data = super().forward(data, training)
        if self.channels_last:
            data['inputs'] = data['inputs'].contiguous(
                memory_format=torch.channels_last
            )
        samples = data.get('data_samples')
        if samples is None:
            return data
        rows, columns = (side // self.stride for side in data['inputs'].shape[-2:])
        for sample, size in zip(samples, sizes, strict=True):
            shape = tuple(-(-side // self.stride) for side in size)
            sample.set_metainfo(dict(map_shape=shape))
            if 'gt_density' not in sample:
                continue
            found = tuple(sample.gt_density.shape)
            if found != shape:
                raise ValueError(
                    f'gt_density: expected shape {shape} for an image of {size} at '
                    f'stride {self.stride}, got {found}; PackCrowdInputs needs the '
                    'same stride'
                )
            missing = (0, columns - shape[1], 0, rows - shape[0])
            sample.gt_density = F.pad(sample.gt_density, missing)
        return data
