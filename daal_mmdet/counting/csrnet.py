"""CSRNet: dilated convolutions on VGG-16 that paint a density map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from daal_mmdet.counting.vgg_front_end import VGGFrontEnd
from daal_mmdet.validation import check_choice

__all__ = ['CSRNet']

_MODES = ('tensor', 'loss', 'predict')
_BACK_END = (512, 512, 512, 256, 128, 64)
STRIDE = 8


@MODELS.register_module()
class CSRNet(BaseModel):
    """Count people by a density map at 1/8 of the image's size.

    (Y. Li, X. Zhang, D. Chen, "CSRNet: Dilated convolutional neural networks for
    understanding the highly congested scenes", CVPR 2018, configuration B.) The first
    ten convolutions of VGG-16, then six of 3 x 3 at dilation 2 with 512, 512, 512, 256,
    128 and 64 channels, each with a ReLU, then one of 1 x 1. The count is the sum of
    the map.

    The paper enlarges the map 8 times before it compares; like the authors' published
    code, this compares at 1/8.

    Args:
        width: Factor of all numbers of channels but the last, > 0; 1 is CSRNet.
        norm_cfg: Normalisation behind each 3 x 3 convolution, as ``dict(type='BN')``;
            None, as published, for none.
        loss: Config of the loss, called as ``loss(maps, targets, mask)`` with three
            (B, H', W') tensors.
        frontend_init_cfg: See :class:`~daal_mmdet.counting.vgg_front_end.VGGFrontEnd`,
            as ``dict(type='Pretrained', checkpoint='torchvision://vgg16')``; None takes
            ``init_cfg`` for the front end too.
        data_preprocessor: Config of the preprocessor.
        init_cfg: Of all layers; the authors' N(0, 0.01). Without weights of VGG-16 it
            lets the signal die out; then use
            ``dict(type='Kaiming', layer='Conv2d')``.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        width: float = 1.0,
        norm_cfg: dict | None = None,
        loss: dict = dict(type='CountingLoss'),  # noqa: B006 - read, never changed
        frontend_init_cfg: dict | None = None,
        data_preprocessor: dict = dict(  # noqa: B006
            type='CrowdDataPreprocessor'
        ),
        init_cfg: dict | list | None = dict(  # noqa: B006
            type='Normal', layer='Conv2d', std=0.01
        ),
    ) -> None:
        # Built here so that no default scope is needed to find it.
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        self.frontend = VGGFrontEnd(width, norm_cfg, frontend_init_cfg)
        layers: list[nn.Module] = []
        before = self.frontend.out_channels
        for channels in _BACK_END:
            after = max(1, round(channels * width))
            layers.append(nn.Conv2d(before, after, 3, padding=2, dilation=2))
            if norm_cfg is not None:
                layers.append(build_norm_layer(norm_cfg, after)[1])
            layers.append(nn.ReLU(inplace=True))
            before = after
        self.backend = nn.Sequential(*layers)
        self.output_layer = nn.Conv2d(before, 1, 1)
        self.loss_density = MODELS.build(loss)

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[BaseDataElement] | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Run the network.

        Args:
            inputs: Normalised images, (B, 3, H, W), H and W multiples of 8.
            data_samples: B samples; mode 'loss' reads their ``gt_density``, (H / 8,
                W / 8), and both other modes, where it is, ``map_shape`` of their
                metainfo: the rows and columns of the map that belong to the image.
            mode: 'tensor', 'loss' or 'predict'.

        Returns:
            'tensor': maps, (B, H / 8, W / 8), in heads a cell. 'loss': a dict with
            ``loss_density``. 'predict': the samples (new ones without
            ``data_samples``) with ``pred_density``, the image's part of the map, and
            ``pred_count``, its sum.

        Raises:
            ValueError: If ``mode`` is unknown, a size is no multiple of 8, or mode
                'loss' lacks targets.
        """
        check_choice('mode', mode, _MODES)
        if inputs.dim() != 4 or any(side % STRIDE for side in inputs.shape[-2:]):
            raise ValueError(
                f'inputs: expected (B, 3, H, W) with H and W multiples of {STRIDE}, as '
                f'CrowdDataPreprocessor pads them, got {tuple(inputs.shape)}'
            )
        maps = self.output_layer(self.backend(self.frontend(inputs))).squeeze(1)
        if mode == 'tensor':
            return maps
        if mode == 'predict':
            return self._predict(maps, data_samples)
        if data_samples is None or any('gt_density' not in s for s in data_samples):
            raise ValueError(
                "gt_density: mode 'loss' needs it in each data sample; add "
                'LoadDensityMap to the training pipeline'
            )
        targets = torch.stack([sample.gt_density for sample in data_samples])
        mask = torch.zeros_like(maps)
        for own, sample in zip(mask, data_samples, strict=True):
            rows, columns = _map_shape(sample, own)
            own[:rows, :columns] = 1
        return dict(loss_density=self.loss_density(maps, targets, mask))

    def _predict(
        self, maps: Tensor, data_samples: Sequence[BaseDataElement] | None
    ) -> list[BaseDataElement]:
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in maps]
        for density, sample in zip(maps.float(), data_samples, strict=True):
            rows, columns = _map_shape(sample, density)
            sample.pred_density = density[:rows, :columns]
            sample.pred_count = sample.pred_density.sum()
        return list(data_samples)


def _map_shape(sample: BaseDataElement, density: Tensor) -> tuple[int, int]:
    rows, columns = sample.get('map_shape', tuple(density.shape))
    return rows, columns
