import dataclasses
import json
from pathlib import Path

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config

import daal_mmdet.benchmark  # noqa: F401 - registers the baselines
from daal_mmdet.benchmark.spec import load_spec

FOLDER = Path(__file__).parents[2] / 'configs' / 'benchmark'
SPECS = sorted(FOLDER.glob('*.py'))
DATA = ('bccd', 'aquarium', 'coco_mini', 'long_tail')
ONE_STAGE = [
    'FocalLoss',
    'CrossEntropyLoss',
    'GHMC',
    'ClassBalancedFocalLoss',
    'EqualizedFocalLoss',
    'DAALLoss',
]
TWO_STAGE = ['CrossEntropyLoss', 'SeesawLoss', 'EQLV2Loss', 'DAALLoss']
ABLATION = [
    'FocalLoss',
    '+ BNM 1.0',
    '+ BNM 0.05',
    '+ adaptive BNM',
    '+ class weights',
    'DAALLoss',
    '+ class weights, adaptive BNM',
    '+ class weights of up to 10',
    '+ class weights of up to 10, adaptive BNM',
    '+ class weights, adaptive BNM, UncertaintyAwareSmoothL1',
    'DAALLoss, adaptive BNM',
    'DAALLoss, UncertaintyAwareSmoothL1',
]


def test_every_data_set_has_all_baselines_and_ablations():
    variants = {path.stem: list(load_spec(path).variants) for path in SPECS}
    for data in DATA:
        assert variants.pop(f'{data}_losses') == ONE_STAGE
        assert variants.pop(f'{data}_two_stage') == TWO_STAGE
        assert variants.pop(f'{data}_ablation') == ABLATION
    assert list(variants) == ['bccd_box_losses']


def classes_of(config):
    """Names of the classes; COCO's where the config does not say."""
    head = config.model.get('bbox_head') or config.model.roi_head.bbox_head
    names = config.train_dataloader.dataset.get('metainfo', {}).get('classes')
    return list(names or (f'class {i}' for i in range(80))), head


def shrink(config):
    """The same model with few channels."""
    config.merge_from_dict(
        {
            'model.backbone.widen_factor': 0.1,
            'model.neck.in_channels': [8, 16, 32],
            'model.neck.out_channels': 16,
        }
    )
    parts = [config.model.get('bbox_head'), config.model.get('rpn_head')]
    for head in filter(None, parts):
        head.update(in_channels=16, feat_channels=16)
    if 'roi_head' in config.model:
        config.model.roi_head.bbox_roi_extractor.out_channels = 16
        config.model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16)


@pytest.mark.parametrize('path', SPECS, ids=lambda path: path.stem)
def test_every_variant_trains(path, one_image_batch, tmp_path):
    spec = load_spec(path)
    values = {}
    for run in spec.plan()[: len(spec.variants)]:
        config = Config(run.config.to_dict())
        classes, head = classes_of(config)
        assert head.num_classes == len(classes)
        for names in spec.class_means.values():
            assert set(names) < set(classes)
        if 'train_ann_file' in head.loss_cls:
            # Its data set need not be there.
            head.loss_cls.train_ann_file = str(tmp_path / 'train.json')
            boxes = [dict(image_id=0, category_id=0)] * 9
            document = dict(
                images=[dict(id=0)],
                categories=[dict(id=i, name=n) for i, n in enumerate(classes)],
                annotations=boxes,
            )
            (tmp_path / 'train.json').write_text(json.dumps(document))
        shrink(config)
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        inputs, samples = one_image_batch(model, config)
        samples[0].gt_instances.labels %= len(classes)
        losses, _ = model.parse_losses(model.loss(inputs, samples))
        losses.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert any(gradient.abs().sum() > 0 for gradient in gradients)
        for hook in config.custom_hooks:
            HOOKS.build(hook)
        values[run.variant] = losses.item()
    # Same weights and image: what differs is the loss.
    assert all(value > 0 for value in values.values())
    assert len(set(values.values())) > 1 or len(values) == 1


@pytest.mark.parametrize('path', SPECS, ids=lambda path: path.stem)
def test_every_spec_takes_other_schedules_and_imagenet_weights(
    path, monkeypatch, tmp_path
):
    spec = load_spec(path)
    # One variant stands for all, which share the base config.
    spec = dataclasses.replace(spec, variants={spec.baseline: {}}, seeds=(0,))
    plain = spec.plan()[0]
    assert plain.start is None
    assert plain.setting.endswith('from scratch')
    key, length = plain.length
    for other in (length // 2, 3 * length):
        run = dataclasses.replace(spec, schedule=other).plan()[0]
        assert run.length == (key, other)
        assert run.config.param_scheduler[-1].end == other
        assert run.hash != plain.hash
    weights = tmp_path / 'imagenet.pth'
    weights.write_bytes(b'weights')
    monkeypatch.setenv('BACKBONE_CHECKPOINT', str(weights))
    run = spec.plan()[0]
    assert run.start == weights
    assert run.setting == f'{length} {key[4:]}, backbone imagenet.pth'
    assert run.config.model.backbone.widen_factor == 1.0
    assert run.hash != plain.hash
