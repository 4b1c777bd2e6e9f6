"""Class-balanced focal loss, a baseline of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS
from torch import Tensor

from daal_mmdet.evaluation.class_counts import count_classes
from daal_mmdet.validation import check_number

__all__ = ['ClassBalancedFocalLoss', 'class_balanced_weights']


def class_balanced_weights(counts: Sequence[int], beta: float = 0.9999) -> Tensor:
    """Inverse effective number of samples of each class, scaled to a mean of 1.

    ::

        w_c ~ (1 - beta) / (1 - beta^n_c),    sum_c w_c = C

    (Y. Cui et al., "Class-balanced loss based on effective number of samples", CVPR
    2019, eq. 2 and section 4.3).

    Args:
        counts: n, (C,), samples of each class. The formula has no value at 0, which
            counts as 1.
        beta: In [0, 1); 0 weighs all classes the same.

    Returns:
        (C,), float32.

    Raises:
        TypeError, ValueError: If ``beta`` is out of range, or there is no class.
    """
    check_number('beta', beta, low=0)
    if beta >= 1:
        raise ValueError(f'beta: expected a value >= 0 and < 1, got {beta!r}')
    if not len(counts):
        raise ValueError('samples_per_class: expected at least one class, got none')
    for count in counts:
        check_number('samples_per_class', count, low=0, integer=True)
    samples = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    weights = (1 - beta) / (1 - beta**samples)
    return (weights * len(counts) / weights.sum()).float()


@MODELS.register_module()
class ClassBalancedFocalLoss(FocalLoss):
    """Focal loss whose rows weigh by the rarity of their class.

    A row of class y weighs :func:`class_balanced_weights` at y, in all its entries, as
    in the authors' code. Deviations, since theirs classifies images:

    * a background row, which they do not have, weighs 1;
    * alpha stays as in the detector's focal loss, where they let the weight replace it;
      so with equal counts the loss is mmdet's ``FocalLoss``.

    For comparisons only; not one of this package's losses for detectors.

    Args:
        samples_per_class: Training samples of each class in the order of the labels;
            None reads them from ``train_ann_file``.
        train_ann_file: Training annotations in COCO format.
        classes: Names of the classes in the order of the labels, for
            ``train_ann_file``; None for the order of its categories.
        beta: In [0, 1).
        **kwargs: The arguments of mmdet's ``FocalLoss``.

    Raises:
        TypeError, ValueError: If not exactly one source of counts is given, or a value
            is out of range.
    """

    class_weights: Tensor

    def __init__(
        self,
        samples_per_class: Sequence[int] | None = None,
        train_ann_file: str | None = None,
        classes: Sequence[str] | None = None,
        beta: float = 0.9999,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        if (samples_per_class is None) == (train_ann_file is None):
            raise ValueError(
                'expected samples_per_class or train_ann_file, got '
                f'samples_per_class={samples_per_class!r} and '
                f'train_ann_file={train_ann_file!r}'
            )
        if samples_per_class is None:
            _, instances = count_classes(train_ann_file, None)
            names = list(instances) if classes is None else list(classes)
            unknown = [name for name in names if name not in instances]
            if unknown:
                raise ValueError(
                    f'classes: {train_ann_file} has {list(instances)}, not {unknown}'
                )
            samples_per_class = [instances[name] for name in names]
        weights = class_balanced_weights(samples_per_class, beta)
        # Not in checkpoints: it follows from the config.
        self.register_buffer('class_weights', weights, persistent=False)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            pred: (N, C), logits.
            target: (N,), int64 in 0..C, C is background.
            weight: (N,) or (N, C).
            avg_factor: Divides the sum of the loss.
            reduction_override: Replaces ``reduction``.

        Raises:
            ValueError: If ``pred`` has another number of classes, or ``target`` holds
                no labels.
        """
        C = len(self.class_weights)
        if pred.shape[1] != C or target.dim() != 1:
            raise ValueError(
                f'expected predictions (N, {C}) and labels (N,), got '
                f'{tuple(pred.shape)} and {tuple(target.shape)}'
            )
        background = self.class_weights.new_ones(1)
        rows = torch.cat((self.class_weights, background))[target]
        if weight is not None:
            rows = (rows[:, None] if weight.dim() == 2 else rows) * weight
        return super().forward(pred, target, rows, avg_factor, reduction_override)
