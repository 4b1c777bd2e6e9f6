import copy
import gc
import weakref

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn

from daal_mmdet.losses import DAALFocalLoss, DAALLoss
from daal_mmdet.losses.placement import (
    PlacedModule,
    distinct_name,
    path_in_model,
    root_of,
)


class Part(PlacedModule):
    def __init__(self):
        super().__init__()
        self.seen = []

    def placed(self, owner, name):
        self.seen.append((owner, name))


class Head(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part


def build_stages(number=3):
    """Stages are put into a list that is part of the model already, as in mmdet."""
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.bbox_head = nn.ModuleList()
    for _ in range(number):
        model.roi_head.bbox_head.append(Head(Part()))
    return model


def test_a_part_is_told_its_owner_and_name():
    part = Part()
    assert root_of(part) is part
    assert path_in_model(part) == ''
    head = Head(part)
    assert part.seen == [(head, 'part')]
    assert root_of(part) is head
    assert path_in_model(part) == 'part'


def test_paths_are_those_of_named_modules():
    model = build_stages()
    parts = {n: m for n, m in model.named_modules() if isinstance(m, Part)}
    assert len(parts) == 3
    for name, part in parts.items():
        assert path_in_model(part) == name
        assert root_of(part) is model
    model.neck = nn.Sequential(nn.Linear(1, 1), Part())
    assert path_in_model(model.neck[1]) == 'neck.1'


def test_wrappers_are_no_part_of_the_path():
    head = Head(Part())
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = head
    assert root_of(head.part) is head
    assert path_in_model(head.part) == 'part'


def test_a_part_that_moves_has_its_new_place():
    part = Part()
    Head(part)
    other = nn.Module()
    other.second = part
    assert path_in_model(part) == 'second'
    assert [name for _, name in part.seen] == ['part', 'second']


def test_an_error_stops_the_building():
    class Picky(PlacedModule):
        def placed(self, owner, name):
            raise ValueError(f'not as {name}')

    with pytest.raises(ValueError, match='not as part'):
        Head(Picky())


def test_copies_have_no_place_and_owners_are_not_kept_alive():
    model = build_stages(1)
    copied = copy.deepcopy(model)
    part = copied.roi_head.bbox_head[0].part
    assert path_in_model(part) == ''
    assert distinct_name(part, Part, 'name', '') == 'name'
    part, reference = model.roi_head.bbox_head[0].part, weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
    assert isinstance(path_in_model(part), str)


def test_names_are_distinct_only_where_needed():
    model = build_stages(1)
    (part,) = [m for m in model.modules() if isinstance(m, Part)]
    assert distinct_name(part, Part, 'daal', 'part') == 'daal'
    model = build_stages(2)
    parts = [m for m in model.modules() if isinstance(m, Part)]
    names = [distinct_name(part, Part, 'daal', 'part') for part in parts]
    assert names == ['daal_roi_head.bbox_head.0', 'daal_roi_head.bbox_head.1']
    # Attributes that are not the usual one stay.
    model.rpn_head = nn.Module()
    model.rpn_head.first_part = Part()
    name = distinct_name(model.rpn_head.first_part, Part, 'daal', 'part')
    assert name == 'daal_rpn_head.first'


def test_losses_work_in_heads_that_are_none_of_mmdets():
    head = Head(DAALFocalLoss())
    head.other = nn.ModuleDict({'loss_mask': DAALLoss()})
    assert head.part.num_classes is None
    assert head.part(torch.zeros(4, 3), torch.tensor([0, 1, 2, 3])).isfinite()
