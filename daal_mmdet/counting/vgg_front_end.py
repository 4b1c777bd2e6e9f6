"""The first ten convolutions of VGG-16."""

from __future__ import annotations

import torch.nn as nn
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, update_init_info
from mmengine.runner import CheckpointLoader
from torch import Tensor

from daal_mmdet.placed_dicts import PRETRAINED, bare_type
from daal_mmdet.validation import check_number

__all__ = ['VGGFrontEnd']

_POOL = 'pool'
# Channels of the convolutions up to conv4_3.
_LAYERS = (64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, _POOL, 512, 512, 512)
_WEIGHTS_URL = 'https://download.pytorch.org/models/vgg16-397923af.pth'


class VGGFrontEnd(BaseModule):
    """VGG-16 up to conv4_3 with its ReLU, at 1/8 of the image's size.

    (K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image
    recognition", ICLR 2015, configuration D.) The layers stand in ``features`` at the
    places they have in torchvision's ``vgg16``, and with batch norm in its
    ``vgg16_bn``, so that those weights fit key by key.

    Args:
        width: Factor of all numbers of channels, > 0; 1 is VGG-16.
        norm_cfg: Normalisation behind each convolution, ``dict(type='BN')``; None, as
            in VGG-16, for none.
        init_cfg: None, initialisers of MMEngine, or ``dict(type='Pretrained',
            checkpoint=...)`` with a VGG-16 in torchvision's layout:
            ``'torchvision://vgg16'`` (needs torchvision and a network), a URL, or a
            file. Weights of other layers in it are ignored; each of these must be
            there and fit.

    Raises:
        TypeError, ValueError: If ``width`` is out of its range.
        RuntimeError: From :meth:`init_weights`, so before training, if the weights
            can't be had.
    """

    def __init__(
        self,
        width: float = 1.0,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        check_number('width', width, above=0)
        super().__init__(init_cfg=init_cfg)
        layers: list[nn.Module] = []
        before = 3
        for channels in _LAYERS:
            if channels == _POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            after = max(1, round(channels * width))
            layers.append(nn.Conv2d(before, after, 3, padding=1))
            if norm_cfg is not None:
                layers.append(build_norm_layer(norm_cfg, after)[1])
            layers.append(nn.ReLU(inplace=True))
            before = after
        self.width = width
        self.features = nn.Sequential(*layers)
        self.out_channels = before

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of images (B, 3, H, W): (B, 512 width, H // 8, W // 8)."""
        features: Tensor = self.features(inputs)
        return features

    def init_weights(self) -> None:
        """Initialise, or load the weights that ``init_cfg`` names."""
        init = self.init_cfg
        if not isinstance(init, dict) or bare_type(init) not in PRETRAINED:
            super().init_weights()
            return
        self._load(init['checkpoint'])
        if hasattr(self, '_params_init_info'):
            update_init_info(self, f'VGG-16 from {init["checkpoint"]}')
        self._is_init = True

    def _load(self, checkpoint: str) -> None:
        try:
            loaded = CheckpointLoader.load_checkpoint(
                checkpoint, map_location='cpu', logger='silent'
            )
        # Which error depends on what is missing: torchvision, a network, the file.
        except Exception as error:
            raise RuntimeError(
                f"init_cfg: the weights {checkpoint!r} for CSRNet's front end can't be "
                f'loaded ({type(error).__name__}: {error}). Without a network, fetch '
                f'{_WEIGHTS_URL} elsewhere and name the file as checkpoint, or leave '
                'frontend_init_cfg out to train from scratch'
            ) from error
        given = loaded.get('state_dict', loaded)
        own = self.state_dict()
        for name, value in own.items():
            # Checkpoints from before PyTorch 0.4.1 have no counter.
            if name not in given and not name.endswith('num_batches_tracked'):
                raise RuntimeError(
                    f'init_cfg: {checkpoint!r} lacks {name!r}; expected a VGG-16 in '
                    f"torchvision's layout, found {list(given)[:3]}..."
                )
            if name in given and given[name].shape != value.shape:
                raise RuntimeError(
                    f'init_cfg: {name!r} in {checkpoint!r} has shape '
                    f'{tuple(given[name].shape)}, the front end of '
                    f'width={self.width} needs {tuple(value.shape)}'
                )
        self.load_state_dict({name: given.get(name, own[name]) for name in own})
