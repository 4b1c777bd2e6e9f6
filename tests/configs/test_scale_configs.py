"""Configs of COCO and LVIS: what they inherit, and that twins differ in the loss."""

import copy
import functools
from pathlib import Path

import mmengine
import pytest
import torch
from mmdet.registry import HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.structures import InstanceData

CONFIGS = Path(__file__).parents[2] / 'configs'
EVERY = [
    path.relative_to(CONFIGS)
    for pattern in ('coco/*.py', 'lvis/*.py', '*_mini/*_4e_*.py')
    for path in sorted(CONFIGS.glob(pattern))
]
DETECTORS = {
    'coco': ['retinanet_r50_1x', 'faster_rcnn_r50_1x', 'atss_r50_1x'],
    'lvis': [
        f'{detector}_r50_{schedule}'
        for detector in ('retinanet', 'atss', 'faster_rcnn', 'mask_rcnn')
        for schedule in ('1x', '2x')
    ],
}


@pytest.fixture(autouse=True, scope='module')
def _metafiles_are_read_once():
    """For each config of mmdet, mmengine reads all of mmdet's metafiles, 0.6 s."""
    with pytest.MonkeyPatch.context() as patch:
        cached = functools.cache(mmengine.load)
        patch.setattr('mmengine.config.utils.load', cached, raising=False)
        yield


@functools.cache
def load_once(path):
    return Config.fromfile(CONFIGS / path)


def load(path):
    return copy.deepcopy(load_once(str(path)))


def innermost(dataset):
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def box_head(model):
    return (model.get('bbox_head') or model['roi_head']['bbox_head']).copy()


def test_every_row_of_the_comparison_is_there():
    losses = {True: ('focal', 'daal'), False: ('ce', 'seesaw', 'daal')}
    wanted = {
        Path(folder) / f'{name}_{loss}.py'
        for folder, names in DETECTORS.items()
        for name in names
        for loss in losses[name.startswith(('retinanet', 'atss'))]
    }
    assert {path for path in EVERY if 'mini' not in path.parts[0]} == wanted


@pytest.mark.parametrize('path', EVERY, ids=str)
def test_config_fits_together(path):
    config = load(path)
    lvis = path.parts[0].startswith('lvis')
    mini = path.parts[0].endswith('_mini')
    classes = 1203 if lvis and not mini else 80
    head = config.model.get('bbox_head') or config.model.roi_head.bbox_head
    assert head.num_classes == classes
    train = config.train_dataloader.dataset
    assert (train.type == 'ClassBalancedDataset') == lvis
    kind = 'FewClassLVISMetric' if lvis else 'FewClassCocoMetric'
    for part in ('val', 'test'):
        evaluator = config[f'{part}_evaluator']
        assert evaluator.type == kind
        assert METRICS.get(kind) is not None
        dataset = config[f'{part}_dataloader'].dataset
        assert evaluator.ann_file == dataset.data_root + dataset.ann_file
        assert dataset.ann_file != innermost(train).ann_file
    pipeline = innermost(train).pipeline
    assert pipeline[0].type == 'LoadImageOrSkip'
    for step in pipeline:
        assert TRANSFORMS.get(step.type) is not None
    masks = 'mask_rcnn' in path.name
    assert pipeline[1].get('with_mask', False) == masks
    if lvis and not mini:
        limits = config.model.test_cfg.get('rcnn', config.model.test_cfg)
        assert limits.max_per_img == 300
        epochs = 24 if '_2x_' in path.name else 12
        assert config.train_cfg.max_epochs == epochs
        assert config.param_scheduler[1].end == epochs
        wanted = ['bbox', 'segm'] if masks else 'bbox'
        assert config.val_evaluator.metric == wanted


@pytest.mark.parametrize(
    'path',
    ['coco/atss_r50_1x_daal.py', 'lvis/mask_rcnn_r50_2x_seesaw.py'],
)
def test_config_survives_a_dump(path, tmp_path):
    config = load(path)
    config.dump(tmp_path / 'dumped.py')
    dumped = Config.fromfile(tmp_path / 'dumped.py')
    assert dumped._cfg_dict.to_dict() == config._cfg_dict.to_dict()


@pytest.mark.parametrize('path', EVERY, ids=str)
def test_a_killed_training_can_go_on(path):
    config = load(path)
    checkpoint = config.default_hooks.checkpoint
    assert checkpoint.backend_args == {'backend': 'whole_file'}
    assert checkpoint.max_keep_ckpts > 1
    hooks = [hook.type for hook in config.custom_hooks]
    assert hooks == [
        'IterationSeedHook',
        'CheckInvalidLossHook',
        'FiniteCheckpointHook',
    ]
    assert all(HOOKS.get(name) is not None for name in hooks)
    assert config.randomness.seed == 0
    assert not config.train_dataloader.get('persistent_workers', False)


@pytest.mark.parametrize('path', [p for p in EVERY if 'daal' in p.name], ids=str)
def test_twin_differs_in_the_name_of_the_loss_alone(path):
    name = 'ce' if '_rcnn_' in path.name else 'focal'
    plain = load(str(path).replace('daal', name))._cfg_dict.to_dict()
    daal = load(path)._cfg_dict.to_dict()
    old = plain['model'].get('bbox_head') or plain['model']['roi_head']['bbox_head']
    new = daal['model'].get('bbox_head') or daal['model']['roi_head']['bbox_head']
    assert old['loss_cls'].pop('type') in ('FocalLoss', 'CrossEntropyLoss')
    assert new['loss_cls'].pop('type') == 'DAALLoss'
    assert daal == plain


@pytest.mark.parametrize('path', [p for p in EVERY if 'seesaw' in p.name], ids=str)
def test_seesaw_differs_in_the_loss_and_its_classifier_alone(path):
    plain = load(str(path).replace('seesaw', 'ce'))._cfg_dict.to_dict()
    seesaw = load(path)._cfg_dict.to_dict()
    old, new = (c['model']['roi_head']['bbox_head'] for c in (plain, seesaw))
    assert old.pop('loss_cls')['type'] == 'CrossEntropyLoss'
    loss = new.pop('loss_cls')
    assert (loss['type'], loss['num_classes']) == ('SeesawLoss', new['num_classes'])
    assert new.pop('cls_predictor_cfg')['type'] == 'NormedLinear'
    assert seesaw == plain


@pytest.mark.parametrize('path', EVERY, ids=str)
def test_head_learns_from_a_batch(path):
    head = box_head(load(path).model)
    sigmoid = head['type'] in ('RetinaHead', 'ATSSHead')
    loss = MODELS.build(head['loss_cls'])
    torch.manual_seed(0)
    C = head['num_classes']
    # Seesaw has two columns of objectness, softmax one of background.
    columns = (
        C if sigmoid else loss.get_cls_channels(C) if 'seesaw' in path.name else C + 1
    )
    pred = torch.randn(6, columns, requires_grad=True)
    labels = torch.tensor([0, 1, C - 1, C, C, 2])
    value = loss(pred, labels, torch.ones(6), avg_factor=4)
    value = sum(value.values()) if isinstance(value, dict) else value
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(pred.grad).all()
    assert pred.grad[:3].abs().sum() > 0


def test_seesaw_does_not_run_in_a_dense_head():
    """Why RetinaNet and ATSS have no such row; should mmdet learn it, add them."""
    config = load('coco_mini/retinanet_mobilenetv2_4e_focal.py').model
    config.bbox_head.loss_cls = {'type': 'SeesawLoss', 'num_classes': 80}
    with pytest.raises((TypeError, RuntimeError, AttributeError, AssertionError)):
        dense_loss_value(config)


def test_eqlv2_counts_rows_that_a_dense_head_ignores():
    """Why they have no such row either: it reads neither weights nor avg_factor."""
    loss = MODELS.build({'type': 'EQLV2Loss', 'num_classes': 3})
    pred, labels = torch.zeros(4, 4), torch.tensor([0, 3, 3, 3])
    ignored = loss(pred, labels, torch.zeros(4), avg_factor=1)
    assert ignored > 0


def test_eqlv2_does_not_tell_a_two_stage_head_how_to_score():
    """Why they have no such row: trained with sigmoids, they predict by a softmax."""
    eqlv2, seesaw = (
        MODELS.build({'type': name, 'num_classes': 3})
        for name in ('EQLV2Loss', 'SeesawLoss')
    )
    assert not getattr(eqlv2, 'custom_activation', False)
    assert seesaw.custom_activation


def dense_loss_value(model):
    parts = {'train_cfg': model.train_cfg, 'test_cfg': model.test_cfg}
    head = MODELS.build({**model.bbox_head, **parts})
    maps = [torch.randn(1, 64, s, s) for s in (8, 4, 2, 1)]
    truth = InstanceData(
        bboxes=torch.tensor([[4.0, 4.0, 40.0, 40.0]]), labels=torch.tensor([1])
    )
    meta = {'img_shape': (64, 64), 'pad_shape': (64, 64)}
    losses = head.loss_by_feat(*head(maps), [truth], [meta])
    return sum(sum(value) for value in losses.values()).backward()


@pytest.mark.parametrize('loss', ['focal', 'daal'])
def test_dense_head_learns_with_the_losses_it_is_given(loss):
    model = load(f'coco_mini/retinanet_mobilenetv2_4e_{loss}.py').model
    dense_loss_value(model)
