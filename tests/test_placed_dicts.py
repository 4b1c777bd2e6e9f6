from mmengine.model import PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS

from daal_mmdet.placed_dicts import (
    PRETRAINED,
    bare_type,
    built_class,
    placed_dicts,
    placed_metrics,
)


def test_dicts_with_a_type_come_with_their_keys_outer_ones_first():
    loss, scale = dict(type='DAALLoss'), dict(type='Scale', of=[1])
    head = dict(type='Head', loss_cls=loss, scales=(scale, 2))
    model = dict(heads=[None, head], name='x')
    assert list(placed_dicts(model, 'model')) == [
        ('model.heads[1]', head),
        ('model.heads[1].loss_cls', loss),
        ('model.heads[1].scales[0]', scale),
    ]
    assert list(placed_dicts(None, 'model')) == []


def test_metrics_come_with_their_keys_however_an_evaluator_is_written():
    coco, voc = dict(type='CocoMetric'), dict(type='VOCMetric')
    for given, placed in (
        (None, []),
        (coco, [('val_evaluator', coco)]),
        ([coco, voc], [('val_evaluator[0]', coco), ('val_evaluator[1]', voc)]),
        (dict(metrics=coco), [('val_evaluator.metrics', coco)]),
        (dict(type='E', metrics=(voc,)), [('val_evaluator.metrics[0]', voc)]),
    ):
        config = dict(val_evaluator=given, test_evaluator=voc)
        assert list(placed_metrics(config, 'val')) == placed
    assert list(placed_metrics({}, 'val')) == []


def test_a_type_is_known_by_its_bare_name():
    for kind in ('Pretrained', 'mmengine.Pretrained', PretrainedInit):
        assert bare_type(dict(type=kind)) in PRETRAINED
    assert bare_type(dict(type='mmengine.model.PretrainedInit')) in PRETRAINED
    assert bare_type({}) == bare_type(dict(type=None)) == ''


def test_a_class_is_found_by_its_name_or_is_the_type_itself():
    for kind in ('Pretrained', PretrainedInit):
        assert built_class(dict(type=kind), WEIGHT_INITIALIZERS) is PretrainedInit
    assert built_class(dict(type='NoSuchInit'), WEIGHT_INITIALIZERS) is None
    assert built_class({}, WEIGHT_INITIALIZERS) is None
