"""What a classification loss does for the head that it stands in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from daal_mmdet.losses.head_rules import HeadRules, rules_of
from daal_mmdet.losses.placement import PlacedModule

__all__ = ['HeadAwareLoss']


class HeadAwareLoss(PlacedModule):
    """Base of classification losses that fit themselves to the head that builds them.

    mmdet's ``BBoxHead`` has C + 1 columns under a softmax unless its loss has "custom
    channels", as ``SeesawLoss`` does. That is how a loss of one sigmoid a class tells
    it to have no column for the background, and turns logits into its scores. Other
    heads see ``use_sigmoid`` and need none of this.

    Attributes:
        use_sigmoid: Whether logits have one sigmoid a class.
        activated: Whether predictions are probabilities already.
        num_classes: C; None while it is not known.
        beta: Exponent for quality targets; None if the config does not say.
        rules: What the head asks for.
        custom_cls_channels: Whether the loss decides on the columns of the classifier.
        custom_activation: Whether it turns them into scores.
        custom_accuracy: Whether it measures the accuracy.
    """

    use_sigmoid: bool
    activated: bool
    num_classes: int | None
    beta: float | Sequence[float] | None

    def __init__(self) -> None:
        super().__init__()
        self.rules = HeadRules()
        self.custom_cls_channels = False
        self.custom_activation = False
        self.custom_accuracy = False
        self._head_hook: RemovableHandle | None = None
        self._attribute = ''

    def placed(self, owner: nn.Module, name: str) -> None:
        """Learn from the head that builds this loss; see :func:`rules_of`."""
        self.rules = rules_of(
            owner,
            name,
            self.use_sigmoid,
            self.activated,
            self.num_classes,
            self.beta,
        )
        self.num_classes = self.rules.num_classes
        custom = self.rules.custom_channels and self.use_sigmoid
        self.custom_cls_channels = custom
        self.custom_activation = custom
        self.custom_accuracy = custom
        if self._head_hook is not None:
            self._head_hook.remove()
        self._attribute = name
        self._head_hook = owner.register_forward_pre_hook(self._hear_of_head)

    def _hear_of_head(self, head: nn.Module, inputs: tuple) -> None:
        # A loss that another one has replaced is no part of the head any more.
        standing = getattr(head, self._attribute, None)
        if getattr(standing, '_orig_mod', standing) is self:
            self.before_head(head, inputs)

    def before_head(self, head: nn.Module, inputs: tuple) -> None:
        """See that the head is about to compute its predictions."""

    def count_classes(self, pred: Tensor) -> int:
        """C of predictions (..., C), or (..., C + 1) under a softmax; kept.

        Raises:
            ValueError: If they have another shape or type, or other classes than before
                or than the head.
        """
        shape = tuple(pred.shape)
        if pred.dim() < 2 or not pred.is_floating_point():
            raise ValueError(
                'pred: expected a floating point tensor of shape (N, C), got '
                f'{pred.dtype} of shape {shape}'
            )
        C = shape[-1] - (0 if self.use_sigmoid else 1)
        if C < 1:
            raise ValueError(
                f'pred: shape {shape} leaves {C} classes with '
                f'use_sigmoid={self.use_sigmoid}; a softmax needs C + 1 columns, '
                'background last'
            )
        if self.num_classes not in (None, C):
            raise ValueError(
                f'num_classes: the loss holds {self.num_classes} classes but pred of '
                f'shape {shape} has {C} with use_sigmoid={self.use_sigmoid}'
            )
        self.num_classes = C
        return C

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

        It is 0 where there are none.

        Args:
            cls_score: Logits, (N, C).
            labels: (N,), int64 in 0..C, where C is background.
        """
        # No rows are selected, since to count them a GPU would be waited for.
        foreground = (labels >= 0) & (labels < cls_score.shape[1])
        hits = foreground & (cls_score.argmax(dim=1) == labels)
        return {'acc_classes': 100 * hits.sum() / foreground.sum().clamp(min=1)}
