"""A sigmoid a class in box heads that are made for a softmax."""

from __future__ import annotations

import torch
from mmdet.models.losses import accuracy
from torch import Tensor

from daal_mmdet.losses.placement import PlacedModule

__all__ = ['SigmoidClassifierLoss']


class SigmoidClassifierLoss(PlacedModule):
    """Base of losses that tell mmdet's ``BBoxHead`` to have no background column.

    ``BBoxHead`` has C + 1 columns under a softmax unless its loss has "custom
    channels", as ``SeesawLoss`` does. Other heads see ``use_sigmoid`` and need none of
    this, so it is off by default.

    Attributes:
        custom_cls_channels: Whether the loss decides on the columns.
        custom_activation: Whether it turns them into scores.
        custom_accuracy: Whether it measures the accuracy.
    """

    custom_cls_channels = False
    custom_activation = False
    custom_accuracy = False

    def set_custom(self, custom: bool) -> None:
        """Switch all three on or off."""
        self.custom_cls_channels = custom
        self.custom_activation = custom
        self.custom_accuracy = custom

    def get_cls_channels(self, num_classes: int) -> int:
        """Columns of the classifier."""
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Scores of the classes and, as mmdet expects, of the background.

        Args:
            cls_score: Logits, (N, C).

        Returns:
            (N, C + 1); the background has what the classes leave of 1.
        """
        scores = cls_score.sigmoid()
        background = (1 - scores.sum(dim=1, keepdim=True)).clamp(min=0)
        return torch.cat((scores, background), dim=1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Share of foreground rows whose class has the highest logit, in percent.

        Args:
            cls_score: Logits, (N, C).
            labels: (N,), int64 in 0..C, where C is background.
        """
        foreground = labels < cls_score.shape[1]
        return {'acc_classes': accuracy(cls_score[foreground], labels[foreground])}
