"""Configs of mmdet's own detectors: their base with other losses, nothing else."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

from daal_mmdet.hooks import KalmanCovarianceHook
from daal_mmdet.losses import DAALLoss

CONFIGS = Path(__file__).parents[2] / 'configs'
FOLDERS = (
    'atss',
    'cascade_rcnn',
    'dino',
    'deformable_detr',
    'faster_rcnn',
    'fcos',
    'mask_rcnn',
    'retinanet',
    'rtmdet',
    'yolox',
)
PATHS = [
    path.relative_to(CONFIGS)
    for folder in FOLDERS
    for path in sorted((CONFIGS / folder).glob('*.py'))
]
VARIANTS = ('_daal_uncertainty', '_uncertainty', '_daal')


def plain(config):
    """As dicts, without the scope that inheriting from a package adds."""
    return without_scope(config._cfg_dict.to_dict())


def without_scope(node):
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if key != '_scope_'}
        return {key: without_scope(value) for key, value in kept.items()}
    if isinstance(node, list | tuple):
        return [without_scope(item) for item in node]
    return node


def split(path):
    """Name of the base, and what the file adds."""
    for variant in VARIANTS:
        if path.stem.endswith(variant):
            return path.stem.removesuffix(variant), variant
    raise AssertionError(f'{path}: the name ends in none of {VARIANTS}')


def differences(ours, base, place=''):
    """Places where two nested configs differ, down to the losses."""
    if isinstance(ours, dict) and isinstance(base, dict) and 'loss_' not in place:
        for key in sorted({*ours, *base}):
            yield from differences(ours.get(key), base.get(key), f'{place}.{key}')
    elif isinstance(ours, list) and isinstance(base, list) and len(ours) == len(base):
        for number, pair in enumerate(zip(ours, base, strict=True)):
            yield from differences(*pair, f'{place}.{number}')
    elif ours != base:
        yield place, ours, base


def test_the_detectors_that_people_use_most_are_there():
    assert {path.parent.name for path in PATHS} == set(FOLDERS)
    for folder in FOLDERS:
        variants = {split(path)[1] for path in PATHS if path.parent.name == folder}
        assert {'_daal', '_daal_uncertainty'} <= variants
    assert {split(p)[0][:11] for p in PATHS if p.parent.name == 'rtmdet'} == {
        'rtmdet_tiny',
        'rtmdet_s_8x',
    }


@pytest.mark.parametrize('path', PATHS, ids=str)
def test_only_losses_and_the_hook_are_changed(path, shipped_config):
    name, variant = split(path)
    ours = plain(Config.fromfile(CONFIGS / path))
    base = plain(shipped_config(f'{path.parent.name}/{name}.py'))
    assert ours.pop('custom_imports')['imports'] == ['daal_mmdet']
    hooks = ours.pop('custom_hooks', [])
    base_hooks = base.pop('custom_hooks', [])
    ours.pop('loss_bbox', None)
    hook = {'type': 'KalmanCovarianceHook'}
    assert hooks == base_hooks + ([hook] if 'uncertainty' in variant else [])
    changed = {'loss_cls': set(), 'loss_bbox': set()}
    for place, new, old in differences(ours, base):
        key = 'loss_' + place.rpartition('loss_')[2]
        changed[key].add(new['type'])
        # Weights and reductions of the base stay.
        kept = new.get('loss', new)
        for option in ('loss_weight', 'reduction', 'mode', 'eps'):
            assert kept.get(option) == old.get(option), f'{place}.{option}'
        if new['type'] == 'UncertaintyAwareLoss':
            assert new['loss'] == old
    assert changed['loss_cls'] == ({'DAALLoss'} if 'daal' in variant else set())
    box = changed['loss_bbox']
    assert bool(box) == ('uncertainty' in variant)
    assert box <= {'UncertaintyAwareSmoothL1', 'UncertaintyAwareLoss'}


@pytest.mark.parametrize('path', PATHS, ids=str)
def test_model_builds_and_every_loss_has_a_name_and_filters_of_its_own(path):
    _, variant = split(path)
    model = MODELS.build(Config.fromfile(CONFIGS / path).model)
    losses = [module for module in model.modules() if isinstance(module, DAALLoss)]
    names = [loss._name_of_scalars() for loss in losses]
    expected = 0 if 'daal' not in variant else 3 if 'cascade' in path.stem else 1
    assert len(set(names)) == len(losses) == expected
    assert all(loss.num_classes == 80 for loss in losses)
    shares = {loss.class_balance.share.data_ptr() for loss in losses}
    assert len(shares) == expected
    if 'uncertainty' in variant:
        hook = KalmanCovarianceHook()
        hook.before_train(SimpleNamespace(model=model, iter=0))
        assert hook.trackers
