"""The check itself, on one small config for each mode."""

import pytest
import torch

from daal_mmdet.compatibility import model_check
from daal_mmdet.compatibility.model_check import check_model
from daal_mmdet.compatibility.shipped_configs import ShippedConfig, load_model
from daal_mmdet.losses import DAALLoss
from daal_mmdet.losses.adaptive_proportion import AdaptiveProportion


def check(name, sizes=(96,)):
    return check_model(ShippedConfig(name, load_model(name)), sizes)


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
        ('yolact/yolact_r50_1xb8-55e_coco.py', ['softmax'], 'works'),
        (
            'yolof/yolof_r50-c5_8xb8-1x_coco.py',
            ['sigmoid'],
            'no adapter for YOLOFHead',
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
        (
            'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
            False,
            'SSDHead takes no classification loss from the config',
        ),
        ('clrnet/clrnet.py', False, 'CLRHead, which tells background from lane by'),
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
    result = check('tood/tood_r50_fpn_1x_coco.py')
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
    assert 'loss is inf in iteration 0' in result.reason


def test_filters_that_stand_still_fail(monkeypatch):
    monkeypatch.setattr(DAALLoss, 'end_call', lambda self, *args, **kwargs: None)
    result = check(SMALL)
    assert result.status == 'fails'
    assert 'the class shares were never measured' in result.reason
    monkeypatch.undo()
    monkeypatch.setattr(AdaptiveProportion, 'observe', lambda self, *args: None)
    result = check(SMALL)
    assert result.status == 'fails'
    assert 'the task loss was never measured' in result.reason


def test_a_box_loss_that_fails_does_not_hide_the_class_loss(monkeypatch):
    def refuse(model):
        raise RuntimeError('the box loss broke')

    monkeypatch.setattr(model_check, '_connect', refuse)
    result = check(SMALL)
    assert result.status == 'works'
    assert result.box == 'RuntimeError: the box loss broke'


def raises(error):
    def broken(*args):
        raise error

    return broken


def test_a_model_that_fails_with_its_own_losses_is_not_checked(monkeypatch):
    error = RuntimeError('carafe: implementation for device cpu not found.')
    monkeypatch.setattr(model_check, '_train_step', raises(error))
    result = check(SMALL)
    assert result.status == 'not checked'
    assert result.reason == (
        'fails with its own losses too: RuntimeError: carafe: implementation for '
        'device cpu not found.'
    )
    assert result.box == ''


def test_a_model_whose_package_is_missing_is_not_checked(monkeypatch):
    error = ImportError('please install detectron2')
    monkeypatch.setattr(model_check.MODELS, 'build', raises(error))
    result = check(SMALL, (96, 128))
    assert result.status == 'not checked'
    assert result.reason == 'ImportError: please install detectron2'


def test_an_assertion_without_words_is_shown(monkeypatch):
    monkeypatch.setattr(model_check, '_connect', raises(AssertionError()))
    result = check(SMALL)
    assert result.status == 'works'
    assert result.box == 'AssertionError: raise error'


def test_small_images_may_be_too_small(monkeypatch):
    sizes, batch = [], model_check.random_batch

    def picky(model, size, *args):
        sizes.append(size)
        if size < 128:
            raise RuntimeError('input image is smaller than kernel')
        return batch(model, size, *args)

    monkeypatch.setattr(model_check, 'random_batch', picky)
    assert check(SMALL, (96, 128)).status == 'works'
    # With the box losses, without, its own, its own with boxes in all images; then its
    # own three iterations, and ours.
    assert sizes[:8] == [96] * 4 + [128] * 4


def test_a_model_may_need_boxes_in_all_images(monkeypatch):
    batch = model_check.random_batch

    def picky(model, size, num_boxes, *args):
        assert num_boxes, 'RoI is a empty tensor.'
        return batch(model, size, num_boxes, *args)

    monkeypatch.setattr(model_check, 'random_batch', picky)
    result = check(SMALL)
    assert (result.status, result.box) == ('works', 'works')
    assert result.reason == (
        'images without boxes: fails with its own losses too: '
        'AssertionError: RoI is a empty tensor.'
    )


def test_filters_step_at_every_size(monkeypatch):
    """The losses read the iteration of this training, not of an earlier attempt."""
    step, failed = model_check._train_step, []

    def fail_once(model, batch, iteration):
        step(model, batch, iteration)
        if len(failed) < 3:
            failed.append(iteration)
            raise RuntimeError('input image is smaller than kernel')

    monkeypatch.setattr(model_check, '_train_step', fail_once)
    result = check(SMALL)
    assert (result.status, result.box) == ('works', 'works')


def test_a_config_that_can_not_be_read_keeps_its_problem():
    result = check_model(ShippedConfig('family/name.py', {}, 'ImportError: no timm'))
    assert (result.status, result.reason) == ('not checked', 'ImportError: no timm')


def test_the_same_seed_gives_the_same_weights_and_images():
    torch.manual_seed(123)
    first = check(SMALL)
    second = check(SMALL)
    first.seconds = second.seconds = 0
    assert first == second
