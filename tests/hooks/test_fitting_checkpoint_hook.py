"""Checkpoints that look like those of another model, and are not."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch.nn as nn
from mmdet.models.dense_heads import FCOSHead
from mmengine.model import BaseModule

from daal_mmdet.hooks.fitting_checkpoint_hook import (
    FittingCheckpointHook,
    OtherModelError,
)


def load(model, weights):
    cfg = SimpleNamespace(load_from='a.pth')
    FittingCheckpointHook().after_load_checkpoint(
        SimpleNamespace(model=model, cfg=cfg), {'state_dict': weights}
    )


def test_the_version_of_a_checkpoint_is_heeded():
    """Without it FCOS takes every ``*_cls`` for a ``conv_cls`` of an old version."""

    class Head(FCOSHead):
        def _init_predictor(self):
            super()._init_predictor()
            self.extra_cls = nn.Linear(1, 1)

    model = nn.ModuleDict(
        {'bbox_head': Head(2, 4, feat_channels=4, stacked_convs=1, norm_cfg=None)}
    )
    weights = model.state_dict()
    load(model, weights)
    assert 'bbox_head.extra_cls.weight' in weights
    old = OrderedDict(
        (name.replace('conv_cls', 'fcos_cls'), weight)
        for name, weight in weights.items()
        if 'extra' not in name
    )
    with pytest.raises(
        OtherModelError,
        match=r'^checkpoint: a\.pth is of another .* it has no '
        r'bbox_head\.extra_cls\.weight, bbox_head\.extra_cls\.bias$',
    ):
        load(model, old)


def test_a_weight_of_several_names_is_there_under_any():
    class Tied(BaseModule):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
            self.second.weight = self.first.weight

    model = Tied()
    weights = model.state_dict()
    for name in ('first.weight', 'second.weight'):
        load(model, {k: v for k, v in weights.items() if k != name})
    with pytest.raises(
        OtherModelError, match=r'it has no first\.weight, second\.weight$'
    ):
        load(model, {k: v for k, v in weights.items() if 'bias' in k})


@pytest.mark.parametrize('part', ['loss_cls', 'dn_query_generator'])
def test_what_a_test_does_not_call_may_be_of_another_shape(part):
    def model(classes):
        return nn.ModuleDict({'fc': nn.Linear(2, 2), part: nn.Embedding(classes, 2)})

    weights = model(256).state_dict()
    load(model(80), weights)
    load(model(80), {k: v for k, v in weights.items() if part not in k})
    with pytest.raises(OtherModelError, match=r'it has no fc\.weight, fc\.bias$'):
        load(model(80), {k: v for k, v in weights.items() if part in k})
