"""The check itself, on one small config for each mode."""

import copy

import pytest
import torch
from mmengine.logging import MessageHub

from daal_mmdet.compatibility import model_check
from daal_mmdet.compatibility.model_check import check_model
from daal_mmdet.compatibility.shipped_configs import ShippedConfig, load_model
from daal_mmdet.losses import DAALLoss


@pytest.fixture(autouse=True)
def _own_hubs():
    """Hubs that the checks make do not stay the current one for other tests."""
    known = set(MessageHub._instance_dict)
    yield
    for name in set(MessageHub._instance_dict) - known:
        MessageHub._instance_dict.pop(name)


def check(name, **changes):
    model = copy.deepcopy(load_model(name))
    model['bbox_head'] = {**model.get('bbox_head', {}), **changes} or None
    if not model['bbox_head']:
        del model['bbox_head']
    return check_model(ShippedConfig(name, model))


@pytest.mark.parametrize(
    ('name', 'modes', 'box'),
    [
        ('atss/atss_r18_fpn_8xb8-amp-lsj-200e_coco.py', ['sigmoid'], 'works'),
        (
            'faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py',
            ['sigmoid', 'softmax'],
            'works',
        ),
        ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', ['quality-focal'], 'works'),
        ('yolox/yolox_tiny_8xb8-300e_coco.py', ['sigmoid, soft targets'], 'works'),
        (
            'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
            ['sigmoid, soft targets'],
            '',
        ),
        (
            'yolact/yolact_r50_1xb8-55e_coco.py',
            ['softmax'],
            'no adapter for YOLACTHead',
        ),
        ('detr/detr_r18_8xb2-500e_coco.py', ['query, softmax'], 'works'),
        (
            'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
            ['query, sigmoid'],
            'works',
        ),
        ('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py', ['query, sigmoid'], 'works'),
    ],
    ids=lambda value: value.split('/')[0] if isinstance(value, str) else '',
)
def test_each_mode_works(name, modes, box):
    result = check(name)
    assert (result.status, result.reason) == ('works', '')
    assert result.modes == modes
    assert result.box == box
    assert result.configured
    assert result.seconds > 0


@pytest.mark.parametrize(
    ('name', 'configured', 'reason'),
    [
        ('centernet/centernet_r18_8xb16-crop512-140e_coco.py', True, 'heat maps'),
        ('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', False, "'loss_cls'"),
        ('free_anchor/freeanchor_r50_fpn_1x_coco.py', False, 'never calls loss_cls'),
    ],
)
def test_refused_when_the_model_is_built(name, configured, reason):
    result = check(name)
    assert result.status == 'refused'
    assert reason in result.reason
    assert result.configured == configured
    assert result.box == ''


def test_losses_that_start_later_are_checked_too():
    result = check('tood/tood_r50_fpn_1x_coco.py', in_channels=256)
    assert result.modes == ['quality-focal', 'sigmoid']
    assert result.status == 'works'


SMALL = 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py'


def test_a_gradient_of_zero_fails(monkeypatch):
    forward = DAALLoss.forward
    monkeypatch.setattr(
        DAALLoss, 'forward', lambda self, *a, **k: 0 * forward(self, *a, **k)
    )
    result = check(SMALL)
    assert result.status == 'fails'
    assert result.reason == (
        'ValueError: bbox_head.loss_cls: the gradient of the logits is zero'
    )


def test_a_loss_that_is_not_finite_fails(monkeypatch):
    forward = DAALLoss.forward
    monkeypatch.setattr(
        DAALLoss, 'forward', lambda self, *a, **k: forward(self, *a, **k) / 0
    )
    result = check(SMALL)
    assert result.status == 'fails'
    assert 'loss_cls is inf in iteration 0' in result.reason


def test_filters_that_stand_still_fail(monkeypatch):
    monkeypatch.setattr(DAALLoss, '_gather', lambda self, *args: None)
    result = check(SMALL)
    assert result.status == 'fails'
    assert 'the class shares were never measured' in result.reason


def test_a_box_loss_that_fails_does_not_hide_the_class_loss(monkeypatch):
    def refuse(model):
        raise RuntimeError('the box loss broke')

    monkeypatch.setattr(model_check, '_connect', refuse)
    result = check(SMALL)
    assert result.status == 'works'
    assert result.box == 'RuntimeError: the box loss broke'


def test_what_is_not_installed_is_not_checked(monkeypatch):
    def missing(*args):
        raise ImportError('please install detectron2')

    monkeypatch.setattr(model_check.MODELS, 'build', missing)
    result = check(SMALL)
    assert result.status == 'not checked'
    assert result.reason == 'ImportError: please install detectron2'


def test_operations_without_a_cpu_version_are_not_checked(monkeypatch):
    def no_cpu(*args):
        raise RuntimeError(
            'carafe_forward_impl: implementation for device cpu not found.'
        )

    monkeypatch.setattr(model_check, '_train_step', no_cpu)
    assert check(SMALL).status == 'not checked'


def test_a_config_that_can_not_be_read_keeps_its_problem():
    result = check_model(ShippedConfig('family/name.py', {}, 'ImportError: no timm'))
    assert (result.status, result.reason) == ('not checked', 'ImportError: no timm')


def test_the_same_seed_gives_the_same_weights_and_images():
    torch.manual_seed(123)
    first = check(SMALL)
    second = check(SMALL)
    first.seconds = second.seconds = 0
    assert first == second
