"""Puts the losses into a config wherever it has a loss of theirs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmdet.registry import MODELS

from daal_mmdet.compatibility.shipped_configs import CLASS_LOSSES, walk

__all__ = ['Merged', 'merge_box_losses', 'merge_class_losses']

# DAALLoss takes all their keys, so that changing the type is enough.
_MERGED_INTO = {'CrossEntropyLoss', 'FocalLoss', 'QualityFocalLoss'}
_OF_DELTAS = {'L1Loss': {'beta': 0.0}, 'SmoothL1Loss': {}}
_WRAPPED = {
    'BalancedL1Loss',
    'BoundedIoULoss',
    'CIoULoss',
    'DIoULoss',
    'EIoULoss',
    'GIoULoss',
    'IoULoss',
    'MSELoss',
    'SIoULoss',
}


class Merged(NamedTuple):
    """A loss that was put in.

    Attributes:
        head: Type of the head.
        key: Its argument, such as 'loss_cls'.
        base: Type of the loss that was there; '' for none.
        replaced: Whether the config of that loss was deleted, not merged into.
    """

    head: str
    key: str
    base: str
    replaced: bool = False


def merge_class_losses(model: dict, **options: Any) -> list[Merged]:
    """Give every classification loss of a model the type ``DAALLoss``, in place.

    What a user writes, ``loss_cls=dict(type='DAALLoss')``, is merged into the loss of
    the base config. Losses with other keys than ``FocalLoss``, ``CrossEntropyLoss`` and
    ``QualityFocalLoss`` are replaced whole (``_delete_=True``), all but ``use_sigmoid``
    and ``loss_weight``.

    Where the config has no such loss but the head would take one, the head is given
    one, to see what it says.

    Args:
        model: Config of the model.
        **options: Further keys of every ``DAALLoss``.

    Returns:
        What was put in; empty if the model takes no classification loss.
    """
    merged = []
    for node, key in walk(model):
        if key not in CLASS_LOSSES or not isinstance(node[key], Mapping):
            continue
        loss = node[key]
        base = str(loss['type'])
        replaced = base not in _MERGED_INTO
        if replaced:
            kept = {k: loss[k] for k in ('use_sigmoid', 'loss_weight') if k in loss}
            node[key] = dict(kept, type='DAALLoss', **options)
        else:
            loss.update(type='DAALLoss', **options)
        merged.append(Merged(str(node['type']), key, base, replaced))
    if merged:
        return merged
    for name in ('bbox_head', 'head'):
        head = model.get(name)
        cls = MODELS.get(head['type']) if isinstance(head, Mapping) else None
        for key in ('loss_cls', 'cls_loss'):
            if cls is not None and _takes(cls, key):
                head[key] = dict(type='DAALLoss', use_sigmoid=True, **options)
                merged.append(Merged(str(head['type']), key, '', True))
    return merged


def _takes(cls: type, key: str) -> bool:
    """Whether the constructor has the argument, or passes it on to one that has."""
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        if key in parameters:
            return True
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def merge_box_losses(model: dict) -> list[Merged]:
    """Give every ``loss_bbox`` that allows it a weight of its covariance, in place.

    L1 and Smooth L1 become ``UncertaintyAwareSmoothL1``; losses of whole boxes become
    the inner loss of an ``UncertaintyAwareLoss``; others stay.
    """
    merged = []
    for node, key in walk(model):
        if key != 'loss_bbox' or not isinstance(node[key], Mapping):
            continue
        loss = node[key]
        base = str(loss['type'])
        if base in _OF_DELTAS:
            loss.update(_OF_DELTAS[base], type='UncertaintyAwareSmoothL1')
        elif base in _WRAPPED:
            inner = copy.deepcopy(dict(loss))
            node[key] = dict(type='UncertaintyAwareLoss', loss=inner)
        else:
            continue
        merged.append(Merged(str(node['type']), key, base, base in _WRAPPED))
    return merged
