from daal_mmdet.placed_dicts import placed_dicts


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
