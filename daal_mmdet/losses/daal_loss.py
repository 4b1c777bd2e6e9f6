"""DAALLoss: focal loss, class balance and adaptive nuclear-norm maximization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from daal_mmdet.losses.adaptive_composition import AdaptiveComposition
from daal_mmdet.losses.bnm_loss import (
    NORMALIZATIONS,
    batch_nuclear_norm_loss,
    choose_rows,
)
from daal_mmdet.losses.class_balance import ClassBalance, check_options
from daal_mmdet.losses.confusion import confusion_loss
from daal_mmdet.losses.head_aware_loss import HeadAwareLoss
from daal_mmdet.losses.head_rules import FULL_CALL
from daal_mmdet.losses.iteration_scalars import current_iteration
from daal_mmdet.losses.placement import distinct_name
from daal_mmdet.losses.snapshot import snapshot
from daal_mmdet.losses.targets import flatten_rows, parse_targets
from daal_mmdet.losses.task_term import TaskTerm
from daal_mmdet.nuclear_norm import METHODS
from daal_mmdet.validation import REDUCTIONS, check_choice, check_number

__all__ = ['DAALFocalLoss', 'DAALLoss']

_CONFUSION_WEIGHT = 0.1


@MODELS.register_module()
class DAALLoss(AdaptiveComposition, HeadAwareLoss):
    """Classification loss that adapts to imbalance while it trains.

    ::

        L_k = loss_weight * (L_task + lambda_k * L_bnm),
        lambda_k = bnm_weight * (1 - K_k)

    (Liu et al., "Dynamically adaptive adjustment loss function biased towards few-class
    learning", IET Image Processing 17(2), 2023). Three parts:

    * L_task: focal loss (``use_sigmoid=True``) or focal cross entropy, whose positive
      term carries a weight per class from :class:`ClassBalance`. Beside the sigmoids
      stands a cross entropy among the classes, see :func:`confusion_loss`.
    * L_bnm: batch nuclear-norm maximization over the foreground rows, see
      :func:`batch_nuclear_norm_loss`. A head that calls its loss once a level gets the
      mean over the calls of an iteration, as many as the iteration before had.
    * lambda: the proportion, from the Kalman gain of the task loss, see
      :class:`AdaptiveProportion`.

    With ``bnm_weight=0, class_balance=None`` value and gradient are those of mmdet's
    ``FocalLoss`` (sigmoid) or ``CrossEntropyLoss`` (softmax, at its default gamma and
    alpha). The four schemes of the paper: ``bnm_weight=0``; ``bnm_weight=1.0,
    bnm_adaptive=False``; ``bnm_weight=0.05, bnm_adaptive=False``;
    ``bnm_weight=0.05``; each with ``class_balance=None``.

    It accepts the keys of ``FocalLoss`` and ``CrossEntropyLoss``, so that a config that
    only says ``loss_cls=dict(type='DAALLoss')`` keeps what it inherits.

    An *iteration* runs from one value of ``MessageHub``'s ``'iter'`` to the next,
    however often a head calls its loss within it; with no runner each call is one. The
    filters step once an iteration, on sums over its calls and over all ranks; every
    rank must run the head in every iteration. Calls in eval mode, without gradients,
    or with ``reduction_override='none'`` (a sampler's) use the filters but do not feed
    them. ``reduction='none'`` in the config leaves L_bnm out, which belongs to no row.
    An iteration with a non-finite loss leaves the filters as they were. Heads that see
    the same objects in several calls, as DETR in each layer of its decoder, have the
    first one counted (:class:`~daal_mmdet.losses.head_rules.HeadRules`). A resumed
    training goes on with the filters; ``load_from`` starts with new ones. A checkpoint
    holds rank 0's sums of its last iteration: resumed on several ranks, that one
    measurement is rank 0's alone. The loss belongs outside of what
    ``torch.utils.checkpoint`` computes again, which would count its calls again
    (backbones and necks within are fine).

    Deviations from the paper, which prints no normalisation, covariance or cycle: all
    choices are stated at the classes and functions named above. Its formulas have no
    cross entropy among the classes; ``confusion_weight=0`` goes without
    (docs/choices.md tells what it is for).

    Args:
        use_sigmoid: Logits have C columns, one sigmoid each, if True; C + 1 columns,
            background last, under one softmax if False. None takes the default of the
            class: False, which is what a head assumes when its config does not say.
        gamma: Focusing exponent, >= 0; or one for each class, C (sigmoid) or C + 1,
            background last (softmax). None means 2 for sigmoid, as in ``FocalLoss``,
            and 0 for softmax, as in ``CrossEntropyLoss``.
        alpha: Weight of the positive term in [0, 1], the negative term gets 1 - alpha.
            ``'auto'`` means 0.25 for sigmoid and none for softmax; None is none. It
            does not enter for quality targets, as in ``QualityFocalLoss``.
        beta: Exponent for quality targets, >= 0, or C of them; None means ``gamma``.
        reduction: 'mean', 'sum' or 'none'.
        loss_weight: Factor of the whole, >= 0.
        activated: Whether predictions are probabilities already, as those of TOOD.
        class_weight: Fixed weights, >= 0, besides the adaptive ones: C weights of the
            positive term (sigmoid) or C + 1 row weights, background last (softmax); a
            number stands for as many equal ones.
        ignore_index: Label of rows to ignore; None means -100.
        avg_non_ignore: Whether 'mean' divides by the rows that are not ignored.
        bg_cls_weight: Weight of background rows, >= 0 (softmax only).
        use_mask: Refused: mask losses have no class rows.
        num_classes: C; None takes it from the head, or else from the first logits.
        bnm_weight: Weight of L_bnm, >= 0; the paper's is 0.05. Its meaning depends on
            ``bnm_normalization``; with 'bound' L_bnm lies in [0, 1). YOLOX, RTMDet and
            TOOD divide what the loss returns by their number of positives, L_bnm too:
            multiply by it there. The default is 0, which leaves out the term and its
            filter: beside the class weights it measured no better (docs/choices.md) and
            costs time.
        bnm_adaptive: Whether the Kalman gain scales ``bnm_weight``.
        bnm_normalization: 'bound', 'batch' or 'rank'.
        bnm_method: 'auto', 'svd', 'gram', 'newton_schulz' or 'fast'.
        bnm_max_rows: More foreground rows than this are thinned out evenly, > 0, for
            L_bnm and the confusion term.
        class_balance: Options of :class:`ClassBalance` (``tau, kappa, max_weight,
            floor, process_noise``); None switches it off.
        confusion_weight: Weight, >= 0, of the cross entropy among the classes that
            :func:`confusion_loss` adds to L_task on rows that hold an object, with the
            adaptive and fixed weights of their classes; sigmoid only. None means 0.1
            for a sigmoid with ``class_balance``, else 0. Reduction 'none' leaves the
            term out.
        update_cycle: Iterations between updates of the proportion, >= 1; None predicts
            them.
        update_fraction: Predicted change of the task loss, as a share of it, > 0, that
            calls for an update.
        update_cycle_range: Smallest and largest predicted cycle, in iterations, >= 1.
        trend_noise: Relative process noise of the task filter, > 0.
        noise_forgetting: Forgetting factor of its measurement noise, in [0, 1].
        log_prefix: First part of the scalars' names, ``train/<log_prefix>_...``,
            without 'loss' in it. None is 'daal', and with the place of the loss behind
            it where a model holds several, such as ``daal_roi_head.bbox_head.0``.

    Raises:
        TypeError, ValueError: If an argument is out of its range or can't be honoured;
            the message names it. While a head of mmdet is built: if the head can't be
            trained with this loss, or has another number of classes.
    """

    default_use_sigmoid = False

    def __init__(
        self,
        use_sigmoid: bool | None = None,
        gamma: float | Sequence[float] | None = None,
        alpha: float | str | None = 'auto',
        beta: float | Sequence[float] | None = None,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
        class_weight: Sequence[float] | Tensor | float | None = None,
        ignore_index: int | None = None,
        avg_non_ignore: bool = False,
        bg_cls_weight: float | None = None,
        use_mask: bool = False,
        num_classes: int | None = None,
        bnm_weight: float = 0.0,
        bnm_adaptive: bool = True,
        bnm_normalization: str = 'bound',
        bnm_method: str = 'auto',
        bnm_max_rows: int = 1024,
        class_balance: dict | None = {},  # noqa: B006 - read, never changed
        confusion_weight: float | None = None,
        update_cycle: int | None = None,
        update_fraction: float = 0.1,
        update_cycle_range: Sequence[int] = (1, 100),
        trend_noise: float = 1e-3,
        noise_forgetting: float = 0.95,
        log_prefix: str | None = None,
    ) -> None:
        if use_sigmoid is None:
            use_sigmoid = self.default_use_sigmoid
        if use_mask:
            raise ValueError(
                'use_mask: expected False, got True; a mask loss has no class rows to '
                'balance. Keep CrossEntropyLoss for loss_mask'
            )
        check_choice('reduction', reduction, REDUCTIONS)
        check_number('loss_weight', loss_weight, low=0)
        if num_classes is not None:
            check_number('num_classes', num_classes, low=1, integer=True)
        check_choice('bnm_normalization', bnm_normalization, NORMALIZATIONS)
        check_choice('bnm_method', bnm_method, METHODS)
        check_number('bnm_max_rows', bnm_max_rows, low=1, integer=True)
        check_options(class_balance)
        if confusion_weight is None:
            balances = use_sigmoid and class_balance is not None
            confusion_weight = _CONFUSION_WEIGHT if balances else 0.0
        check_number('confusion_weight', confusion_weight, low=0)
        if confusion_weight > 0 and not use_sigmoid:
            raise ValueError(
                'confusion_weight: expected 0 with use_sigmoid=False, whose softmax '
                f'compares the classes already, got {confusion_weight!r}'
            )
        balance = None
        if class_balance is not None:
            balance = ClassBalance(num_classes, **class_balance)
        super().__init__(
            bnm_weight,
            bnm_adaptive,
            update_cycle,
            update_fraction,
            update_cycle_range,
            trend_noise,
            noise_forgetting,
            log_prefix,
            num_counts=0 if balance is None else len(balance.share),
        )
        self.class_balance = balance
        self.task_term = TaskTerm(
            use_sigmoid=use_sigmoid,
            gamma=gamma,
            alpha=alpha,
            beta=beta,
            activated=activated,
            class_weight=class_weight,
            ignore_index=ignore_index,
            avg_non_ignore=avg_non_ignore,
            bg_cls_weight=bg_cls_weight,
        )
        # mmdet's heads read these two from the loss.
        self.use_sigmoid = use_sigmoid
        self.loss_weight = loss_weight
        self.reduction = reduction
        self.activated = activated
        self.num_classes = num_classes
        self.beta = beta
        self.bnm_normalization = bnm_normalization
        self.bnm_method = bnm_method
        self.bnm_max_rows = bnm_max_rows
        self.confusion_weight = confusion_weight
        self._calls = 0

    def placed(self, owner: nn.Module, name: str) -> None:
        """Learn from the head that builds this loss, and make room for its classes."""
        super().placed(owner, name)
        if self.class_balance is not None and self.num_classes is not None:
            self.class_balance.reserve(self.num_classes)
            self.resize_counts(len(self.class_balance.share))

    def restart(self) -> None:
        """Forget what the filters know and what was gathered for them."""
        super().restart()
        if self.class_balance is not None:
            self.class_balance.restart()

    def before_head(self, head: nn.Module, inputs: tuple) -> None:
        """End the iteration before, also where the head will not call the loss.

        YOLOX does not without positives; other ranks that do would wait for this one.
        A decoder's layers are counted anew: semi-supervised models have several passes
        an iteration, of other images.
        """
        self._calls = 0
        if not (self.training and torch.is_grad_enabled()):
            return
        # Not asked above: torch.export of a detector would meet what it can't compile.
        if current_iteration() is not None and self.num_classes is not None:
            self.begin_call(feeds=True)

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = None,
    ) -> Tensor:
        """Compute the loss of a batch of rows.

        Args:
            pred: Logits, or probabilities if ``activated``: (..., C) if
                ``use_sigmoid``, else (..., C + 1) with background last.
            target: Labels (...,), int in 0..C, where C is background; or one-hot or
                soft targets shaped as ``pred`` (under a softmax also without the
                background column); or (labels, scores) for quality focal loss.
            weight: Row weights (...,), or for sigmoid also one an entry, (..., C) or
                flattened.
            avg_factor: What 'mean' divides by.
            reduction_override: Takes the place of ``reduction``.
            ignore_index: Takes the place of the option.

        Returns:
            A scalar in float32 at least; for no rows 0, with a zero gradient. For
            'none' the task term alone, because a batch has only one nuclear norm:
            (..., C) or, under a softmax, for quality targets and in heads that order
            rows by their losses, (...,).

        Raises:
            TypeError, ValueError: If shapes, the number of classes or, on a CPU,
                values do not fit; the message names them.
        """
        reduction = self.reduction
        if reduction_override is not None:
            check_choice('reduction_override', reduction_override, REDUCTIONS)
            reduction = reduction_override
        C = self.count_classes(pred)
        if self.class_balance is not None:
            self.class_balance.check_room(C)
        leading = pred.shape[:-1]
        if pred.dim() > 2:
            pred, target, weight = flatten_rows(pred, target, weight)
        targets = parse_targets(
            pred,
            target,
            weight,
            C,
            self.task_term.ignore_index if ignore_index is None else ignore_index,
        )

        # A sampler's call overrides the reduction to 'none'; some heads always do so.
        rows_asked = reduction == 'none' and reduction_override is not None
        feeds = self.training and torch.is_grad_enabled() and not rows_asked
        alone = self.begin_call(feeds)
        kind = self.rules.kind_of_call(self._calls) if feeds else FULL_CALL
        balance = None
        if self.class_balance is not None and kind.balances:
            balance = snapshot(self.class_balance(C))
        has_bnm = self.bnm_weight > 0 and kind.bnm and reduction != 'none'
        # A single class, and proposals that have none, can't be confused.
        confuses = (
            self.confusion_weight > 0
            and C > 1
            and kind.balances
            and reduction != 'none'
        )
        take = taken = bnm = None
        if has_bnm or confuses:
            foreground = targets.foreground()
            take, taken = choose_rows(foreground, self.bnm_max_rows)
        task, rows = self.task_term(pred, targets, balance, reduction, avg_factor, take)
        logits = None if rows is None else self.task_term.class_logits(rows)
        if confuses:
            confusion = confusion_loss(
                logits,
                targets.of_rows(take),
                taken,
                self.task_term.combined_weights(balance, C, pred.device),
            )
            # Rows that were thinned out have others stand for them.
            share = foreground.sum() / taken.sum().clamp(min=1)
            divisor = self.task_term.divisor(pred, targets, reduction, avg_factor)
            task = task + self.confusion_weight * share * confusion / divisor
        if has_bnm:
            bnm = batch_nuclear_norm_loss(
                logits, taken, self.bnm_normalization, self.bnm_method
            )
        loss, bnm = self.compose(task, bnm)
        if reduction == 'none':
            if self.rules.ranks_rows and task.dim() > 1:
                task = task.sum(dim=1)
            loss = task.reshape(*leading, *task.shape[1:])
            task = task.sum() / max(task.numel(), 1)
        if feeds:
            counted = self.class_balance is not None and kind.counts
            if self.rules.repeats:
                self._calls += 1
            self.end_call(
                alone,
                task,
                bnm,
                targets.class_counts() if counted else None,
                has_bnm=kind.bnm,
            )
        return self.loss_weight * loss

    def _observe_counts(self, counts: Tensor, valid: Tensor) -> None:
        if self.class_balance is not None:
            self.class_balance.observe(counts[: self.num_classes], valid)

    def _iteration_ended(self) -> None:
        self._calls = 0

    def _further_scalars(self) -> dict[str, Tensor]:
        if self.class_balance is None:
            return {}
        low, high = self.class_balance(self.num_classes).aminmax()
        return {'min_weight': low, 'max_weight': high}

    def _name_of_scalars(self) -> str:
        return self.log_prefix or distinct_name(self, DAALLoss, 'daal', 'loss_cls')


@MODELS.register_module()
class DAALFocalLoss(DAALLoss):
    """:class:`DAALLoss` with ``use_sigmoid=True`` by default; same arguments."""

    default_use_sigmoid = True
