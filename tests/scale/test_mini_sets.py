"""The shipped mini configs train and evaluate, on sets of a few images."""

import json
from pathlib import Path

import make_subset as make_subset_tool
import pytest

from daal_mmdet.datasets.long_tail_scenes import CLASSES

ROOT = Path(__file__).parents[2]
# The real images are no part of the project; they, or a link, may lie in two places.
COCO_MINI = ROOT / 'data' / 'coco_mini'
if not COCO_MINI.is_dir():
    COCO_MINI = ROOT.parent / 'shared' / 'data' / 'coco_mini'

SMALLER = """
_base_ = '{base}'
model = dict(
    backbone=dict(widen_factor=0.125, norm_eval=True),
    neck=dict(in_channels=[8, 16, 40], out_channels=16),
    bbox_head=dict(
        num_classes={classes}, in_channels=16, feat_channels=16, stacked_convs=1,
        norm_cfg=dict(num_groups=4)),
    test_cfg=dict(score_thr=0.0, max_per_img=20))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1))
image = dict(data_root='{data}/')
train_dataloader = dict(batch_size=2, dataset={train})
val_dataloader = dict(batch_size=2, dataset=image)
test_dataloader = val_dataloader
"""


def run_subset(source, out, *options):
    make_subset_tool.main([str(source), '--out', str(out), *map(str, options)])
    return json.loads(out.read_text())


def small_config(tmp_path, kind, data, classes, evaluator):
    base = ROOT / 'configs' / f'{kind}_mini' / 'retinanet_mobilenetv2_4e_daal.py'
    train = 'dict(dataset=image)' if kind == 'lvis' else 'image'
    text = SMALLER.format(base=base, classes=classes, data=data, train=train)
    path = tmp_path / 'small.py'
    path.write_text(f'{text}val_evaluator = dict({evaluator})\n')
    return path


def final_metrics(work_dir):
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {k: v for line in lines for k, v in line.items() if '/' in k}


@pytest.fixture
def generated_lvis(scenes, tmp_path):
    """The generated scenes as an LVIS set: eight and four images, twelve classes."""
    root = tmp_path / 'lvis'
    annotations = scenes / 'annotations'
    documents = {}
    for split in ('train', 'val'):
        documents[split] = run_subset(
            annotations / f'{split}.json', root / 'annotations' / f'lvis_{split}.json',
            '--to-lvis', split, '--frequencies', annotations / 'train.json',
            '--not-exhaustive', 0.5,
        )  # fmt: skip
        (root / split).symlink_to(scenes / split)
    return root, documents


def with_class_names(config, *datasets):
    names = f'metainfo = dict(classes={CLASSES})\n'
    names += ''.join(f'{dataset}["metainfo"] = metainfo\n' for dataset in datasets)
    config.write_text(config.read_text() + names)
    return config


@pytest.mark.parametrize('processes', [1, 2])
def test_lvis_trains_and_evaluates(
    generated_lvis, tmp_path, run_training, run_two_processes, processes
):
    root, documents = generated_lvis
    images = documents['val']['images']
    assert all(image['neg_category_ids'] for image in images)
    assert any(i['not_exhaustive_category_ids'] for i in documents['train']['images'])
    evaluator = f"ann_file='{root}/annotations/lvis_val.json'"
    config = with_class_names(
        small_config(tmp_path, 'lvis', root, len(CLASSES), evaluator),
        'train_dataloader["dataset"]["dataset"]',
        'val_dataloader["dataset"]',
    )
    run = run_training if processes == 1 else run_two_processes
    run(tmp_path / 'log', config, '--work-dir', tmp_path / 'work')
    metrics = final_metrics(tmp_path / 'work')
    for key in ('AP', 'APr', 'APf', 'AP_fixed', 'AP_pool', 'APr_fixed', 'APf_pool'):
        assert f'lvis/bbox_{key}' in metrics
    # All classes are in ten images at most.
    assert metrics['lvis/bbox_APr'] == metrics['lvis/bbox_AP'] >= 0
    assert metrics['lvis/bbox_APf'] == -1


@pytest.mark.parametrize('processes', [1, 2])
def test_coco_trains_and_evaluates(
    scenes, tmp_path, run_training, run_two_processes, processes
):
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    files = {}
    for split in ('train', 'val'):
        files[split] = root / 'annotations' / f'instances_{split}2017.json'
        files[split].symlink_to(scenes / 'annotations' / f'{split}.json')
        (root / f'{split}2017').symlink_to(scenes / split)
    evaluator = f"ann_file='{files['val']}', train_ann_file='{files['train']}'"
    config = with_class_names(
        small_config(tmp_path, 'coco', root, len(CLASSES), evaluator),
        'train_dataloader["dataset"]',
        'val_dataloader["dataset"]',
    )
    run = run_training if processes == 1 else run_two_processes
    run(tmp_path / 'log', config, '--work-dir', tmp_path / 'work')
    metrics = final_metrics(tmp_path / 'work')
    assert metrics['coco/bbox_mAP'] >= 0
    assert 'coco/bbox_mAP_few' in metrics


def test_a_detector_that_finds_nothing_has_a_best_checkpoint(
    tiny_config, tmp_path, run_training
):
    extra = "model['test_cfg']['score_thr'] = 1.1\n"
    extra += "default_hooks['checkpoint']['save_best'] = 'coco/bbox_mAP_few'\n"
    work = tmp_path / 'work'
    run_training(tmp_path / 'log', tiny_config(1, extra), '--work-dir', work)
    assert final_metrics(work)['coco/bbox_mAP_few'] == 0
    assert (work / 'best_coco_bbox_mAP_few_epoch_1.pth').is_file()


@pytest.mark.skipif(
    not COCO_MINI.is_dir(), reason='coco_mini, the real images, is not there'
)
@pytest.mark.parametrize('kind', ['coco', 'lvis'])
def test_real_images_train_and_evaluate(kind, tmp_path, run_training):
    root = tmp_path / kind
    for split in ('train', 'val'):
        source = COCO_MINI / 'annotations' / f'instances_{split}2017.json'
        name = f'instances_{split}2017' if kind == 'coco' else f'lvis_{split}'
        options = ['--images', 4, '--image-dir', COCO_MINI / f'{split}2017']
        options += ['--copy-images', root / f'{split}2017']
        if kind == 'lvis':
            options += ['--to-lvis', f'{split}2017', '--frequencies', source]
        run_subset(source, root / 'annotations' / f'{name}.json', *options)
    evaluator = f"ann_file='{root}/annotations/{name}.json'"
    if kind == 'coco':
        train_file = root / 'annotations' / 'instances_train2017.json'
        evaluator += f", train_ann_file='{train_file}'"
    config = small_config(tmp_path, kind, root, 80, evaluator)
    run_training(tmp_path / 'log', config, '--work-dir', tmp_path / 'work')
    metrics = final_metrics(tmp_path / 'work')
    overall, group = {
        'coco': ('coco/bbox_mAP', 'coco/bbox_mAP_few'),
        'lvis': ('lvis/bbox_AP', 'lvis/bbox_APc'),
    }[kind]
    assert 0 <= metrics[overall] <= 1
    # -1 where none of the few images shows a class of the group.
    assert metrics[group] == -1 or 0 <= metrics[group] <= 1
