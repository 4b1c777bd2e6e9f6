import dataclasses
import re

import pytest
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.config import Config

from daal_mmdet.benchmark.schedule import set_schedule_length
from daal_mmdet.benchmark.spec import load_spec
from daal_mmdet.placed_dicts import placed_metrics


def test_plan_is_the_matrix_seed_by_seed(spec):
    plan = spec.plan()
    assert [(run.seed, run.variant) for run in plan] == [
        (seed, name) for seed in (0, 1, 2) for name in ('one', 'two', 'three')
    ]
    assert all(run.config.randomness.seed == run.seed for run in plan)
    losses = [run.config.model.loss.to_dict() for run in plan[:3]]
    assert losses == [
        dict(type='L1', beta=1, deep=dict(a=1, b=2)),
        dict(type='L1', beta=1, deep=dict(c=3)),
        dict(type='L1', beta=2, deep=dict(a=1, b=2)),
    ]
    assert plan[0].config.custom_imports['imports'] == [
        'daal_mmdet',
        'daal_mmdet.benchmark',
    ]
    # Planning again finds _delete_ where it was.
    assert [run.hash for run in spec.plan()] == [run.hash for run in plan]
    assert len({run.hash for run in plan}) == 3
    assert len({run.folder for run in plan}) == 9


def test_overrides_and_length_come_before_the_variants(spec):
    changed = dataclasses.replace(
        spec, overrides={'model.loss.beta': 5, 'model.depth': 7}, schedule=8
    )
    one, _, three = changed.plan()[:3]
    assert one.config.model.loss.beta == 5
    assert three.config.model.loss.beta == 2
    assert three.config.model.depth == 7
    assert three.length == ('max_epochs', 8)
    warm_up, cosine = three.config.param_scheduler
    assert (warm_up.end, cosine.end, cosine.T_max) == (50, 8, 8)


@pytest.mark.parametrize(
    'follows',
    [
        {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP')]},
        {'param_scheduler': [dict(type='ReduceOnPlateauLR', by_epoch=True)]},
    ],
)
def test_a_training_that_follows_its_validations_keeps_them(spec, follows):
    assert spec.plan()[0].config.train_cfg.val_begin == 5
    plan = dataclasses.replace(spec, overrides=follows).plan()
    assert 'val_begin' not in plan[0].config.train_cfg


def test_a_warm_up_of_as_many_iterations_as_epochs_keeps_its_length():
    def config(**train_cfg):
        warm_up = dict(type='LinearLR', by_epoch=False, begin=0, end=100)
        cosine = dict(type='CosineAnnealingLR', by_epoch=True, T_max=100, end=100)
        return Config(dict(train_cfg=train_cfg, param_scheduler=[warm_up, cosine]))

    for key, ends in (('max_epochs', (100, 12)), ('max_iters', (12, 100))):
        made = config(**{key: 100})
        set_schedule_length(made, 12)
        assert tuple(scheduler.end for scheduler in made.param_scheduler) == ends


@pytest.mark.parametrize(
    ('place', 'around'),
    [
        ('', lambda scheduler: scheduler),
        ('.g', lambda scheduler: dict(g=scheduler)),
        ('.g[1]', lambda scheduler: dict(g=[dict(type='ConstantLR'), scheduler])),
    ],
)
def test_a_schedule_may_be_all_that_mmengine_takes(place, around):
    def config(**options):
        scheduler = around(dict(type='PolyLR', **options))
        return Config(dict(train_cfg=dict(max_epochs=100), param_scheduler=scheduler))

    made = config(end=100)
    set_schedule_length(made, 12)
    assert made.param_scheduler == around(dict(type='PolyLR', end=12))
    with pytest.raises(
        ValueError,
        match=rf'12 does not fit param_scheduler{re.escape(place)}.begin=20, made for',
    ):
        set_schedule_length(config(begin=20), 12)


@pytest.mark.parametrize('suffix', ['.py', '.yaml'])
def test_a_spec_may_be_yaml_and_inherit(spec_file, suffix):
    child = spec_file.with_name('child' + suffix)
    child.write_text(
        "_base_ = './toy.py'\nseeds = [7]\n"
        if suffix == '.py'
        else '_base_: ./toy.py\nseeds: [7]\n'
    )
    spec = load_spec(child)
    assert spec.seeds == (7,)
    assert [run.variant for run in spec.plan()] == ['one', 'two', 'three']
    assert spec.plan()[1].config.model.loss.deep.to_dict() == dict(c=3)


def test_a_length_that_does_not_fit_is_refused():
    steps = dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11])
    config = Config(dict(train_cfg=dict(max_epochs=12), param_scheduler=[steps]))
    with pytest.raises(
        ValueError, match=r'schedule: 24 does not fit param_scheduler\[0\].milestones'
    ):
        set_schedule_length(config, 24)
    with pytest.raises(ValueError, match='expected max_epochs or max_iters'):
        set_schedule_length(Config(dict(train_cfg=dict(type='Loop'))), 24)
    with pytest.raises(TypeError, match='schedule: expected an integer, got 1.5'):
        set_schedule_length(config, 1.5)


@pytest.mark.parametrize('length', [200, 600])
def test_a_span_behind_a_warm_up_ends_with_the_training(length):
    warm_up = dict(type='LinearLR', by_epoch=False, begin=0, end=50)
    cosine = dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=300)
    config = Config(
        dict(
            train_cfg=dict(max_iters=300),
            param_scheduler=[warm_up, dict(cosine, T_max=250)],
        )
    )
    set_schedule_length(config, length)
    made = dict(cosine, end=length, T_max=length - 50)
    assert config.param_scheduler == [warm_up, made]


@pytest.mark.parametrize(
    ('landmark', 'schedulers'),
    [
        # RTMDet's: the second half of the training.
        (r'\[0\].begin=150', [dict(type='C', begin=150, end=300, T_max=150)]),
        # YOLOX's: a rest at the end.
        (
            r'\[1\].end=285',
            [
                dict(type='Q', begin=0, end=5),
                dict(type='C', begin=5, end=285, T_max=285),
                dict(type='L', begin=285, end=300),
            ],
        ),
        (r'\[0\].T_max=100', [dict(type='C', T_max=100)]),
        (r'\[0\].step_size=90', [dict(type='S', step_size=90)]),
    ],
)
def test_a_landmark_within_the_training_is_left_to_the_user(landmark, schedulers):
    config = Config(dict(train_cfg=dict(max_epochs=300), param_scheduler=schedulers))
    set_schedule_length(config, 300)
    assert config.param_scheduler == schedulers
    with pytest.raises(
        ValueError,
        match=rf'600 does not fit param_scheduler{landmark}, made for max_epochs=300; '
        'leave schedule out, and set train_cfg.max_epochs and param_scheduler in over',
    ):
        set_schedule_length(config, 600)


def test_evaluators_must_give_the_ap_of_each_class(spec_file, spec):
    base = spec_file.with_name('base.py')
    whole = base.read_text()
    for evaluator in (
        "dict(type='FewClassCocoMetric', groups={})",
        "dict(type='mmdet.CocoMetric', metric=['bbox', 'segm'])",
        "[dict(type='DumpDetResults'), dict(type='CocoMetric')]",
        "dict(type='mmdet.CocoMetric', metric_items=['mAP_50'])",
        "dict(type='Evaluator', metrics=[dict(type='CocoMetric')])",
    ):
        base.write_text(f'{whole}val_evaluator = {evaluator}\n')
        made = list(placed_metrics(spec.plan()[0].config, 'val'))[-1][1]
        assert made.classwise is True
        # The AP of a class is then that of its boxes, since the last metric names it.
        assert made.get('metric', 'bbox') in ('bbox', ['segm', 'bbox'])
        assert 'metric_items' not in made
    for evaluator in (
        "dict(metrics=dict(type='VOCMetric', metric='mAP'))",
        "dict(type='FewClassLVISMetric', ann_file='x.json')",
        "dict(type='VOCMetric', metric='mAP')",
        "dict(type='CocoMetric', metric='segm')",
        "dict(type='CocoMetric', format_only=True)",
        "[dict(type='DumpDetResults')]",
    ):
        base.write_text(f'{whole}test_evaluator = {evaluator}\n')
        with pytest.raises(
            ValueError, match='test_evaluator: expected a CocoMetric whose metric is or'
        ):
            spec.plan()


def test_names_that_no_evaluator_gives_end_it_before_the_trainings(spec_file):
    base = spec_file.with_name('base.py')
    whole = base.read_text()
    text = spec_file.read_text()
    few = "dict(type='FewClassCocoMetric', groups={})"
    plain = "dict(type='CocoMetric')"
    for key, old, new, (val, test), missing in (
        ('metrics', "['mAP', 'rare',", "['mAP', 'mAP_few',", (plain, plain), 'mAP_few'),
        ('compare', "['mAP', 'rare']", "['mAP_99']", (few, few), 'mAP_99'),
        ('compare', "['mAP', 'rare']", "['mAP_50_few']", (plain, few), None),
        ('compare', "['mAP', 'rare']", "['AP of cat', 'mAP_s']", (plain, few), None),
    ):
        base.write_text(f'{whole}val_evaluator = {val}\ntest_evaluator = {test}\n')
        assert old in text
        spec_file.write_text(text.replace(old, new))
        made = load_spec(spec_file)
        if missing is None:
            assert made.plan()
            continue
        with pytest.raises(
            ValueError,
            match=rf"^{key}: the evaluators give \['mAP', .*, not \['{missing}'\]; .*"
            'FewClassCocoMetric gives mAP_few',
        ):
            made.plan()

    @METRICS.register_module()
    class MetricForTest(CocoMetric):
        pass

    try:
        # One's own metric may return anything.
        base.write_text(f"{whole}test_evaluator = dict(type='MetricForTest')\n")
        spec_file.write_text(text.replace("'rare']\nclass", "'mine']\nclass"))
        assert load_spec(spec_file).compare == ('mAP', 'mine')
        assert load_spec(spec_file).plan()
    finally:
        METRICS.module_dict.pop('MetricForTest')


def test_the_setting_says_where_the_training_starts(spec_file, spec):
    assert spec.plan()[0].setting == '4 epochs, from scratch'
    base = spec_file.with_name('base.py')
    whole = base.read_text()
    base.write_text(whole + "load_from = 'weights/retinanet.pth'\n")
    assert spec.plan()[0].setting == '4 epochs, from retinanet.pth'
    loaded = "dict(type='Pretrained', checkpoint='weights/resnet.pth')"
    for starts in (loaded, f"[dict(type='Kaiming', layer='Conv2d'), {loaded}]"):
        base.write_text(f'{whole}model["backbone"] = dict(init_cfg={starts})\n')
        assert spec.plan()[0].setting == '4 epochs, backbone resnet.pth'


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ("baseline = 'one'", "baseline = 'no'", "baseline: expected one of .*got 'no'"),
        ('seeds = [0, 1, 2]', 'seeds = []', 'seeds: expected at least one, got none'),
        ('seeds = [0, 1, 2]', 'seeds = [1, 1]', r'seeds: expected each once, got \[1'),
        ("data = 'toy'", '', 'data is missing'),
        ("data = 'toy'", "data = 'toy'; typo = 1", r"got \['typo'\]"),
        ('beta=2', 'beta=1', "variants: 'one' and 'three' are the same training"),
        ("'base.py'", "'gone.py'", 'base_config: there is no file .*gone.py'),
    ],
)
def test_errors_name_the_key(spec_file, old, new, message):
    text = spec_file.read_text()
    assert old in text
    spec_file.write_text(text.replace(old, new))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_spec(spec_file).plan()


def test_a_missing_spec_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='spec: there is no file'):
        load_spec(tmp_path / 'no.py')
