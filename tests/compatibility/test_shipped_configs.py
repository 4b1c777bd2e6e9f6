import pytest

from daal_mmdet.compatibility.shipped_configs import (
    ShippedConfig,
    choose_configs,
    config_files,
    families,
    load_model,
    next_config,
    walk,
)


def test_walk_sees_every_key_of_nested_dicts_and_lists():
    tree = {'a': [{'b': 1}, ({'c': {'d': 2}},)], 'e': 'text'}
    assert [key for _, key in walk(tree)] == ['a', 'b', 'c', 'd', 'e']
    for node, key in walk(tree):
        if key == 'd':
            node[key] = 3
    assert tree['a'][1][0]['c']['d'] == 3


def test_families_are_the_folders_of_detectors():
    names = families()
    assert {'retinanet', 'faster_rcnn', 'dino', 'rtmdet', 'ssd'} <= set(names)
    assert not {'_base_', 'common'} & set(names)
    assert len(names) > 90


def test_heads_are_what_takes_a_loss():
    name = 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
    config = ShippedConfig(name, load_model(name))
    assert config.family == 'cascade_rcnn'
    assert config.heads() == {'RPNHead', 'Shared2FCBBoxHead'}


def test_cheap_models_come_first():
    names = [path.name for path in config_files('atss')]
    assert names[0] == 'atss_r18_fpn_8xb8-amp-lsj-200e_coco.py' or 'r50' in names[0]
    assert 'r101' in names[-1]


def test_one_config_a_family_and_one_for_each_head_that_these_leave_out():
    seen = []
    configs = choose_configs(['centernet', 'atss'], on_file=lambda: seen.append(1))
    assert [config.family for config in configs] == ['centernet', 'centernet', 'atss']
    assert {head for config in configs for head in config.heads()} == {
        'CenterNetHead',
        'CenterNetUpdateHead',
        'ATSSHead',
    }
    assert len(seen) == len(config_files('centernet')) + len(config_files('atss'))


def test_configs_with_a_classification_loss_come_first():
    assert config_files('pascal_voc')[0].name == 'ssd300_voc0712.py'
    (config,) = choose_configs(['pascal_voc'])
    assert config.has_class_loss()
    (ssd,) = choose_configs(['ssd'])
    assert not ssd.has_class_loss()


@pytest.mark.parametrize(
    ('heads', 'name'),
    [
        ((), 'cascade-rpn_fast-rcnn_r50-caffe_fpn_1x_coco.py'),
        (('StageCascadeRPNHead',), 'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py'),
    ],
)
def test_another_config_of_a_family_has_the_heads_that_are_missing(heads, name):
    tried = ['cascade_rpn/cascade-rpn_r50-caffe_fpn_1x_coco.py']
    assert next_config('cascade_rpn', tried, heads).name == f'cascade_rpn/{name}'
    assert next_config('cascade_rpn', tried, ['CenterNetHead']) is None


def test_every_config_that_has_a_model():
    configs = choose_configs(['centernet'], every=True)
    # Test-time augmentation has no model.
    assert len(configs) == len(config_files('centernet')) - 1
    assert not any(config.problem for config in configs)
    # Those without a loss too.
    names = {config.name for config in choose_configs(['pascal_voc'], every=True)}
    assert len(names) == len(config_files('pascal_voc'))


def test_a_family_that_can_not_be_read_has_an_entry_with_the_reason():
    # They import mmpretrain, which mmdet does not need otherwise.
    pytest.importorskip('mmdet')
    try:
        import mmpretrain  # noqa: F401
    except ImportError:
        (config,) = choose_configs(['timm_example'])
        assert config.problem == ("ModuleNotFoundError: No module named 'mmpretrain'")
        assert config.model == {}
    else:
        pytest.skip('mmpretrain is installed')


def test_unknown_families_are_named():
    with pytest.raises(ValueError, match=r"families: expected some of .*\['yolov99'\]"):
        choose_configs(['atss', 'yolov99'])
