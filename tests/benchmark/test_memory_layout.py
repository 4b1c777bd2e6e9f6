"""No weights lie channels last where one of mmcv's ops would read maps wrongly."""

import copy

import pytest
import torch
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from daal_mmdet.benchmark.memory_layout import lay_out_for_cpu


def lies_channels_last(model):
    kernels = [weight for weight in model.parameters() if weight.dim() == 4]
    return all(
        kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels
    )


@pytest.mark.parametrize(
    ('layer', 'expected'),
    [(nn.BatchNorm2d(8), True), (RoIAlign(7, spatial_scale=0.25), False)],
    ids=['torch', 'mmcv.ops'],
)
def test_a_model_that_holds_an_op_on_maps_stays_as_it_is(layer, expected):
    model = nn.Sequential(nn.Conv2d(4, 8, 3), layer)
    assert not lies_channels_last(model)
    lay_out_for_cpu(model)
    assert lies_channels_last(model) is expected


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('atss/atss_r50_fpn_1x_coco.py', True),
        ('yolox/yolox_tiny_8xb8-300e_coco.py', True),
        # Its head calls deform_conv2d, and no layer of it is one of mmcv's.
        ('tood/tood_r50_fpn_1x_coco.py', False),
        ('dyhead/atss_r50_fpn_dyhead_1x_coco.py', False),
    ],
)
def test_detectors_of_mmdet(shipped_config, name, expected):
    model = shipped_config(name).model
    model.backbone.init_cfg = None
    detector = MODELS.build(model)
    lay_out_for_cpu(detector)
    assert lies_channels_last(detector) is expected


@pytest.mark.parametrize('name', ['retinanet', 'faster_rcnn'])
def test_losses_are_those_of_the_model_as_it_was(one_image_batch, request, name):
    folder = request.config.rootpath / 'configs' / '_base_' / 'models'
    config = Config.fromfile(folder / f'{name}_mobilenetv2.py').model
    model = MODELS.build(config)
    model.init_weights()
    other = copy.deepcopy(model)
    lay_out_for_cpu(other)
    losses = []
    for detector in (model, other):
        torch.manual_seed(0)
        batch = one_image_batch(detector, config)
        losses.append(detector.parse_losses(detector.loss(*batch))[1])
    torch.testing.assert_close(*losses)
