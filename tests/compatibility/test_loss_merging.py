import copy

import pytest

from daal_mmdet.compatibility.loss_merging import (
    Merged,
    merge_box_losses,
    merge_class_losses,
)
from daal_mmdet.compatibility.shipped_configs import load_model


def test_type_is_all_that_changes_where_the_keys_are_known():
    model = load_model('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    base = copy.deepcopy(model)
    merged = merge_class_losses(model)
    assert merged == [
        Merged('RPNHead', 'loss_cls', 'CrossEntropyLoss'),
        Merged('Shared2FCBBoxHead', 'loss_cls', 'CrossEntropyLoss'),
    ]
    for head in (model['rpn_head'], model['roi_head']['bbox_head']):
        assert head['loss_cls'].pop('type') == 'DAALLoss'
    for head in (base['rpn_head'], base['roi_head']['bbox_head']):
        assert head['loss_cls'].pop('type') == 'CrossEntropyLoss'
    assert model == base


def test_every_stage_and_no_other_loss():
    model = load_model('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py')
    assert len(merge_class_losses(model)) == 4
    stages = model['roi_head']['bbox_head']
    assert [stage['loss_cls']['type'] for stage in stages] == ['DAALLoss'] * 3
    assert model['roi_head']['mask_head']['loss_mask']['type'] == 'CrossEntropyLoss'


def test_losses_with_other_keys_are_replaced_whole():
    model = load_model('vfnet/vfnet_r50_fpn_1x_coco.py')
    (merged,) = merge_class_losses(model)
    assert merged == Merged('VFNetHead', 'loss_cls', 'VarifocalLoss', True)
    assert model['bbox_head']['loss_cls'] == {
        'type': 'DAALLoss',
        'use_sigmoid': True,
        'loss_weight': 1.0,
    }


def test_options_are_added_whether_merged_or_replaced():
    for name in ('vfnet/vfnet_r50_fpn_1x_coco.py', 'atss/atss_r50_fpn_1x_coco.py'):
        model = load_model(name)
        merge_class_losses(model, bnm_weight=0.05)
        assert model['bbox_head']['loss_cls']['bnm_weight'] == 0.05


def test_heat_maps_are_asked_too():
    model = load_model('centernet/centernet_r18_8xb16-crop512-140e_coco.py')
    (merged,) = merge_class_losses(model)
    assert merged[:3] == ('CenterNetHead', 'loss_center_heatmap', 'GaussianFocalLoss')


@pytest.mark.parametrize(
    ('name', 'node', 'head', 'key'),
    [
        (
            'free_anchor/freeanchor_r50_fpn_1x_coco.py',
            'bbox_head',
            'FreeAnchorRetinaHead',
            'loss_cls',
        ),
        ('clrnet/clrnet.py', 'head', 'CLRHead', 'cls_loss'),
    ],
)
def test_a_head_that_would_take_one_gets_one_to_see_what_it_says(name, node, head, key):
    model = load_model(name)
    assert merge_class_losses(model) == [Merged(head, key, '', True)]
    assert model[node][key]['type'] == 'DAALLoss'


def test_a_model_that_takes_none_stays_as_it_is():
    model = load_model('ssd/ssd300_coco.py')
    base = copy.deepcopy(model)
    assert merge_class_losses(model) == []
    assert model == base
    assert merge_class_losses({'roi_head': {'type': 'GridRoIHead'}}) == []


def test_box_losses_by_what_they_compare():
    model = {
        'a': {'type': 'A', 'loss_bbox': {'type': 'L1Loss', 'loss_weight': 2.0}},
        'b': {'type': 'B', 'loss_bbox': {'type': 'SmoothL1Loss', 'beta': 0.1}},
        'c': [{'type': 'C', 'loss_bbox': {'type': 'GIoULoss', 'loss_weight': 3.0}}],
        'd': {'type': 'D', 'loss_bbox': {'type': 'GHMR', 'mu': 0.02}},
    }
    merged = merge_box_losses(model)
    assert [(m.head, m.base, m.replaced) for m in merged] == [
        ('A', 'L1Loss', False),
        ('B', 'SmoothL1Loss', False),
        ('C', 'GIoULoss', True),
    ]
    smooth = 'UncertaintyAwareSmoothL1'
    assert model['a']['loss_bbox'] == {'type': smooth, 'loss_weight': 2.0, 'beta': 0.0}
    assert model['b']['loss_bbox'] == {'type': smooth, 'beta': 0.1}
    assert model['c'][0]['loss_bbox'] == {
        'type': 'UncertaintyAwareLoss',
        'loss': {'type': 'GIoULoss', 'loss_weight': 3.0},
    }
    assert model['d']['loss_bbox'] == {'type': 'GHMR', 'mu': 0.02}
