"""What heads of mmdet ask of a classification loss, and which can't have DAALLoss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch.nn as nn

__all__ = ['FULL_CALL', 'CallKind', 'HeadRules', 'rules_of']

_HEAT_MAP = (
    'regresses Gaussian heat maps of centres or corners, which have no rows with a '
    'class each; keep GaussianFocalLoss'
)
_OWN_LOSS = (
    'computes its classification loss itself and never calls loss_cls, so that '
    'DAALLoss would do nothing'
)
_TEXT = (
    'scores the tokens of a text, which mean other classes in each image, so that no '
    'class has a share to balance; keep FocalLoss'
)
_IDENTITIES = (
    'classifies identities under a softmax without a background column; keep '
    'CrossEntropyLoss'
)
_LANES = (
    'tells background from lane by the labels 0 and 1, while DAALLoss has the '
    'background last; keep FocalLoss'
)
_PERSONS = (
    'tells background from person by the labels 0 and 1, while DAALLoss has the '
    'background last; keep CrossEntropyLoss'
)
# By name, since older releases of mmdet lack some of them.
_REFUSED = {
    'CenterNetHead': _HEAT_MAP,
    'CenterNetUpdateHead': _HEAT_MAP,
    'CornerHead': _HEAT_MAP,
    'AutoAssignHead': _OWN_LOSS,
    'FreeAnchorRetinaHead': _OWN_LOSS,
    'SSDHead': _OWN_LOSS,
    'ATSSVLFusionHead': _TEXT,
    'GroundingDINOHead': _TEXT,
    'LinearReIDHead': _IDENTITIES,
    'CLRHead': _LANES,
    'MultiInstanceBBoxHead': _PERSONS,
}
_SIGMOID_ONLY = {'SOLOHead', 'YOLOV3Head'}
_PASS_PROBABILITIES = {'TOODHead'}
_SOFTMAX_ONLY = {'DoubleConvFCBBoxHead', 'MaskFormerHead', 'SABLHead'}
# OHEM samples by the losses of a box head; YOLACT has its own.
_RANK_ROWS = {'BBoxHead', 'YOLACTHead'}
_CLASS_LOSSES = {'loss_cls', 'initial_loss_cls'}


class CallKind(NamedTuple):
    """What a call of the loss does besides its task term.

    Attributes:
        counts: Whether its targets count as samples of their classes.
        bnm: Whether it carries the BNM term.
        balances: Whether the class weights apply.
    """

    counts: bool = True
    bnm: bool = True
    balances: bool = True


FULL_CALL = CallKind()
_REPEATED = CallKind(counts=False)
_AUXILIARY = CallKind(counts=False, bnm=False)
_CLASS_AGNOSTIC = CallKind(counts=False, bnm=False, balances=False)


class HeadRules(NamedTuple):
    """How the loss of one head behaves.

    Attributes:
        num_classes: C of the head; None if it has none.
        custom_channels: Whether the head asks the loss how many columns its classifier
            has, and assumes C + 1 otherwise, also for a sigmoid.
        ranks_rows: Whether the head, or a sampler through it, orders rows by their
            losses where it asks for no reduction, and so needs one number a row.
        repeats: Whether the calls of an iteration see the same objects again, so that
            only the first one counts.
        layers: Calls that are layers of a decoder; None if all are.
        after_layers: What the calls after these are.
    """

    num_classes: int | None = None
    custom_channels: bool = False
    ranks_rows: bool = False
    repeats: bool = False
    layers: int | None = None
    after_layers: CallKind = _AUXILIARY

    def kind_of_call(self, index: int) -> CallKind:
        """Kind of an iteration's call, counted from 0."""
        if not self.repeats or index == 0:
            return FULL_CALL
        if self.layers is not None and index >= self.layers:
            return self.after_layers
        return _REPEATED


def rules_of(
    head: nn.Module,
    name: str,
    use_sigmoid: bool,
    activated: bool = False,
    num_classes: int | None = None,
    quality_exponent: float | Sequence[float] | None = None,
) -> HeadRules:
    """Check that a head can have the loss, and tell how it calls it.

    Heads that inherit from none of mmdet's have no rules.

    Args:
        head: The owner of the loss. Its parts may not be there yet.
        name: The attribute that the loss becomes.
        use_sigmoid: Of the loss.
        activated: Whether the loss takes predictions for probabilities.
        num_classes: Of the loss; None if its config does not say.
        quality_exponent: Of the loss, for targets with scores; None if its config does
            not say.

    Raises:
        ValueError: If the head can not be trained with the loss, or they disagree about
            the classes or about what predictions are; the message names the head, the
            reason and what works.
    """
    families = {base.__name__ for base in type(head).__mro__}
    place = f'{type(head).__name__}.{name}'
    if not any(base.__module__.startswith('mmdet.') for base in type(head).__mro__):
        return HeadRules(num_classes)
    for family, reason in _REFUSED.items():
        if family in families:
            raise ValueError(
                f'{place}: DAALLoss can not train {family}, which {reason}'
            )
    if name.startswith('loss_') and name not in _CLASS_LOSSES:
        raise ValueError(
            f'{place}: DAALLoss is a loss of C classes and their background, as in '
            f'loss_cls; keep the loss of the base config for {name}'
        )
    if quality_exponent is not None and 'DETRHead' in families:
        raise ValueError(
            f'{place}: {type(head).__name__} has scores for the targets of '
            "mmdet's QualityFocalLoss alone, so that beta would do nothing, got "
            f'beta={quality_exponent}; leave it out to train with labels'
        )
    _check_activation(head, families, place, use_sigmoid)
    if families & _PASS_PROBABILITIES and not activated:
        raise ValueError(
            f'{place}: {type(head).__name__} gives its loss probabilities; write '
            'activated=True in the config of the loss'
        )
    of_head = getattr(head, 'num_classes', None)
    if None not in (num_classes, of_head) and num_classes != of_head:
        raise ValueError(
            f'{place}: num_classes={num_classes} of the loss disagrees with '
            f'num_classes={of_head} of the head; leave it out'
        )
    return _call_rules(vars(head), families)._replace(
        num_classes=num_classes if of_head is None else of_head,
        custom_channels='BBoxHead' in families and 'DIIHead' not in families,
        ranks_rows=bool(families & _RANK_ROWS),
    )


def _check_activation(
    head: nn.Module, families: set[str], place: str, use_sigmoid: bool
) -> None:
    wanted = getattr(head, 'use_sigmoid_cls', None)
    if wanted is False and use_sigmoid and not families & _SOFTMAX_ONLY:
        raise ValueError(
            f'{place}: {type(head).__name__} reads use_sigmoid in the config of the '
            'loss and takes a missing one for False, while the loss has '
            'use_sigmoid=True; write that in its config'
        )
    if families & _SIGMOID_ONLY:
        wanted = True
    if families & _SOFTMAX_ONLY:
        wanted = False
    if wanted is not None and wanted != use_sigmoid:
        columns = 'no column' if wanted else 'a column'
        raise ValueError(
            f'{place}: the classifier of {type(head).__name__} has {columns} for the '
            f'background; write use_sigmoid={wanted} in the config of the loss, got '
            f'use_sigmoid={use_sigmoid}'
        )


def _call_rules(head: Mapping[str, object], families: set[str]) -> HeadRules:
    """Rules about the calls of one iteration."""
    if 'DeformableDETRHead' in families:
        # The layers of the decoder, and one more for the proposals of the encoder.
        layers = head['num_pred_layer'] - head['as_two_stage']
        with_classes = 'DINOHead' in families
        after = _AUXILIARY if with_classes else _CLASS_AGNOSTIC
        return HeadRules(repeats=True, layers=layers, after_layers=after)
    repeats = families & {'DETRHead', 'MaskFormerHead'}
    return HeadRules(repeats=bool(repeats))
