from mmengine.model import PretrainedInit

from daal_mmdet.placed_dicts import PRETRAINED, bare_type, placed_dicts


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


def test_a_type_is_known_by_its_bare_name():
    for kind in ('Pretrained', 'mmengine.Pretrained', PretrainedInit):
        assert bare_type(dict(type=kind)) in PRETRAINED
    assert bare_type(dict(type='mmengine.model.PretrainedInit')) in PRETRAINED
    assert bare_type({}) == bare_type(dict(type=None)) == ''
