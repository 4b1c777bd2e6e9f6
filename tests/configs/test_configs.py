from pathlib import Path

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData

CONFIGS = Path(__file__).parents[2] / 'configs'
DETECTORS = [
    path.relative_to(CONFIGS)
    for folder in ('aquarium', 'bccd', 'long_tail')
    for path in sorted((CONFIGS / folder).glob('*.py'))
]


BOX_LOSSES = [
    path.relative_to(CONFIGS)
    for folder in ('bccd', 'faster_rcnn', 'retinanet')
    for path in sorted((CONFIGS / folder).glob('*uncertainty.py'))
]


def as_plain(config):
    return config._cfg_dict.to_dict()


def make_sample(size=64):
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(size, size),
            batch_input_shape=(size, size),
            pad_shape=(size, size),
            scale_factor=(1.0, 1.0),
        )
    )
    boxes, labels = torch.tensor([[10.0, 8.0, 52.0, 50.0]]), torch.tensor([0])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    return sample


@pytest.mark.parametrize('path', DETECTORS, ids=str)
def test_config_builds_its_model_and_survives_a_dump(path, tmp_path):
    config = Config.fromfile(CONFIGS / path)
    model = MODELS.build(config.model)
    classes = config.train_dataloader.dataset.metainfo.classes
    head = getattr(model, 'roi_head', model).bbox_head
    assert head.num_classes == len(classes)
    for part in ('val', 'test'):
        assert config[f'{part}_dataloader'].dataset.metainfo.classes == classes
        assert config[f'{part}_evaluator'].type == 'FewClassCocoMetric'
        assert part in config[f'{part}_dataloader'].dataset.ann_file
        assert part in config[f'{part}_evaluator'].ann_file
    config.dump(tmp_path / 'dumped.py')
    assert as_plain(Config.fromfile(tmp_path / 'dumped.py')) == as_plain(config)


@pytest.mark.parametrize('path', DETECTORS, ids=str)
def test_config_lets_distributed_training_skip_what_has_no_gradient(path):
    config = Config.fromfile(CONFIGS / path)
    model = MODELS.build(config.model)
    losses = model.loss(torch.rand(2, 3, 64, 64), [make_sample(), make_sample()])
    model.parse_losses(losses)[0].backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert config.get('find_unused_parameters', False) == bool(unused), unused


@pytest.mark.parametrize('folder', ['aquarium', 'bccd', 'long_tail'])
def test_twins_differ_in_the_name_of_the_loss_alone(folder):
    name = 'retinanet_mobilenetv2_{}.py'
    focal = as_plain(Config.fromfile(CONFIGS / folder / name.format('focal')))
    daal = as_plain(Config.fromfile(CONFIGS / folder / name.format('daal')))
    assert focal['model']['bbox_head']['loss_cls'].pop('type') == 'FocalLoss'
    assert daal['model']['bbox_head']['loss_cls'].pop('type') == 'DAALLoss'
    assert daal == focal


@pytest.mark.parametrize('path', BOX_LOSSES, ids=str)
def test_box_loss_configs_change_the_losses_and_add_the_hook(path):
    config = Config.fromfile(CONFIGS / path)
    hooks = config.custom_hooks
    names = {hook.type for hook in hooks}
    assert 'KalmanCovarianceHook' in names
    for hook in hooks:
        HOOKS.build(hook)
    head = config.model.get('roi_head', config.model).bbox_head
    for part in (head, config.model.get('rpn_head', head)):
        assert part.loss_bbox.type == 'UncertaintyAwareSmoothL1'
        MODELS.build(part.loss_bbox)
    MODELS.build(head.loss_cls)
    assert (head.loss_cls.type == 'DAALLoss') == ('daal' in path.stem)


def test_backbone_checkpoint_comes_from_one_variable(monkeypatch, tmp_path):
    path = CONFIGS / 'bccd' / 'retinanet_mobilenetv2_daal.py'
    scratch = Config.fromfile(path).model
    assert 'init_cfg' not in scratch.backbone
    assert scratch.backbone.widen_factor == 0.5

    weights = tmp_path / 'backbone.pth'
    monkeypatch.setenv('BACKBONE_CHECKPOINT', str(weights))
    config = Config.fromfile(path).model
    donor = MODELS.build({**config.backbone, 'init_cfg': None})
    torch.save({'state_dict': donor.state_dict()}, weights)
    model = MODELS.build(config)
    model.init_weights()
    assert model.backbone.widen_factor == 1.0
    assert isinstance(model.backbone.conv1.activate, torch.nn.ReLU)
    for name, value in donor.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)
    # The neck must fit the wider backbone.
    assert model.eval()(torch.zeros(1, 3, 64, 64), mode='tensor')


@pytest.mark.parametrize('path', DETECTORS, ids=str)
def test_imagenet_weights_are_fine_tuned(path, monkeypatch):
    scratch = Config.fromfile(CONFIGS / path)
    assert 'custom_keys' not in scratch.optim_wrapper.paramwise_cfg
    backbone = MODELS.build(scratch.model).train().backbone
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.conv1.bn.training

    monkeypatch.setenv('BACKBONE_CHECKPOINT', 'backbone.pth')
    config = Config.fromfile(CONFIGS / path)
    model = MODELS.build(config.model).train()
    still, moving = model.backbone.layer3, model.backbone.layer4
    assert not any(parameter.requires_grad for parameter in still.parameters())
    assert all(parameter.requires_grad for parameter in moving.parameters())
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    lr = config.optim_wrapper.optimizer.lr
    rates = {id(g['params'][0]): g['lr'] for g in optimizer.param_groups}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 0.1 * lr if name.startswith('backbone.') else lr
            assert rates[id(parameter)] == pytest.approx(expected), name
