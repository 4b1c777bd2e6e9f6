import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from daal_mmdet.datasets import LongTailScenes, make_long_tail
from daal_mmdet.datasets.coco_layout import find_coco_layout
from daal_mmdet.datasets.scene_drawing import SHAPES
from daal_mmdet.demo import configs
from daal_mmdet.demo.configs import (
    Schedule,
    adapt_schedule,
    build_config,
    limit_validation,
)

FOLDER = Path(__file__).parents[2] / 'configs' / 'long_tail'


@pytest.fixture(scope='module')
def layout(tmp_path_factory):
    args = LongTailScenes(
        num_train=12, num_val=8, num_test=0, image_size=(96, 64), min_instances=1
    )
    root = tmp_path_factory.mktemp('data') / 'scenes'
    return find_coco_layout(make_long_tail(root, args, progress=False))


def test_the_twins_differ_in_the_type_of_the_loss_alone():
    focal, daal = (
        Config.fromfile(FOLDER / f'retinanet_mobilenetv2_{name}.py').to_dict()
        for name in ('focal', 'daal')
    )
    loss_cls = daal['model']['bbox_head']['loss_cls']
    assert loss_cls['type'] == 'DAALLoss'
    loss_cls['type'] = 'FocalLoss'
    assert daal == focal


def test_the_shipped_config_fits_the_generated_data():
    config = Config.fromfile(FOLDER / 'retinanet_mobilenetv2_focal.py')
    for split in ('train', 'val', 'test'):
        dataset = config[f'{split}_dataloader'].dataset
        assert tuple(dataset.metainfo.classes) == tuple(SHAPES)
        assert dataset.ann_file == f'annotations/{split}.json'
    assert config.model.bbox_head.num_classes == len(SHAPES)
    assert [
        step.scale
        for step in config.train_dataloader.dataset.pipeline
        if step.type == 'Resize'
    ] == [LongTailScenes().image_size]


def test_a_config_is_pointed_at_a_data_set(layout, tmp_path):
    file = FOLDER / 'retinanet_mobilenetv2_daal.py'
    config = build_config(file, layout, Schedule(80, 64), tmp_path, 7, 'auto')
    for loader, split in (
        (config.train_dataloader, 'train'),
        (config.val_dataloader, 'val'),
    ):
        annotations = layout.root / 'annotations' / f'{split}.json'
        assert loader.dataset.ann_file == str(annotations)
        assert loader.dataset.data_prefix.img == str(layout.root / split)
        assert loader.dataset.data_root == ''
        scales = [s.scale for s in loader.dataset.pipeline if s.type == 'Resize']
        assert scales == [(64, 64)]
    assert config.train_cfg.max_iters == config.train_cfg.val_interval == 80
    assert [(s.begin, s.end) for s in config.param_scheduler] == [(0, 10), (10, 80)]
    metric, dump = config.val_evaluator
    assert metric.train_ann_file == str(layout.train.ann_file)
    assert metric.groups == 'auto'
    assert dump.out_file_path == str(tmp_path / 'predictions.pkl')
    assert config.test_dataloader is config.test_cfg is config.test_evaluator is None
    assert config.randomness.seed == 7


def test_without_changes_the_schedule_stays(layout, tmp_path):
    file = FOLDER / 'retinanet_mobilenetv2_daal.py'
    shipped = Config.fromfile(file)
    config = build_config(file, layout, Schedule(), tmp_path, 0, 'auto')
    assert config.train_cfg.max_iters == shipped.train_cfg.max_iters
    assert config.param_scheduler == shipped.param_scheduler
    assert (
        config.train_dataloader.dataset.pipeline
        == shipped.train_dataloader.dataset.pipeline
    )


@pytest.mark.parametrize(
    ('images', 'longest', 'expected'),
    [
        (10, 100, Schedule(200, 100)),  # the least iterations, the data's own size
        (400, 1333, Schedule(600, 320)),  # 12 epochs of 50, the largest size
        (118_000, 640, Schedule(1500, 320)),  # the most iterations
        (400, 20, Schedule(600, 64)),  # the smallest size
    ],
)
def test_schedules_follow_the_data_set(layout, images, longest, expected):
    sizes = ((longest, longest // 2), (longest // 2, longest)) * (images // 2)
    train = dataclasses.replace(layout.train, image_sizes=sizes)
    data = dataclasses.replace(layout, train=train)
    assert adapt_schedule(Schedule(), data, batch_size=8) == expected
    assert adapt_schedule(Schedule(30, 90), data, batch_size=8) == Schedule(30, 90)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ((5, None), 'max_iters must be at least 10, got 5'),
        ((None, 8), 'size must be at least 64, got 8'),
    ],
)
def test_schedules_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        Schedule(*values)


def test_a_large_validation_split_is_cut(layout, tmp_path, monkeypatch):
    assert limit_validation(layout, tmp_path, 0) is layout
    monkeypatch.setattr(configs, '_MAX_VAL_IMAGES', 3)
    cut = limit_validation(layout, tmp_path, 0)
    again = limit_validation(layout, tmp_path, 0)
    assert cut == again
    assert cut.train == layout.train
    document = json.loads(cut.val.ann_file.read_text())
    whole = json.loads(layout.val.ann_file.read_text())
    kept = [image['id'] for image in document['images']]
    assert len(kept) == len(set(kept)) == len(cut.val.image_sizes) == 3
    assert document['annotations'] == [
        a for a in whole['annotations'] if a['image_id'] in kept
    ]
    expected = np.bincount(
        [a['category_id'] - 1 for a in document['annotations']], minlength=12
    )
    np.testing.assert_array_equal(cut.val.instance_counts, expected)
