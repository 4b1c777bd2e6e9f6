from pathlib import Path

import pytest
from mmdet.registry import DATASETS, METRICS, MODELS, VISUALIZERS
from mmengine.config import Config

import daal_mmdet  # noqa: F401 - registers its modules
from daal_mmdet.counting.crowd_scenes import (
    write_shanghaitech_layout,
    write_ucf_cc_50_layout,
)

CONFIGS = Path(__file__).parents[2] / 'configs' / 'counting'
PLAIN = [
    'csrnet_shanghaitech_a',
    'csrnet_shanghaitech_b',
    'csrnet_ucf_cc_50',
    'csrnet_small_shanghaitech_a',
    'csrnet_small_shanghaitech_b',
    'csrnet_small_ucf_cc_50',
]
SCHEMES = {
    '': dict(bnm_weight=0.0),
    '_bnm': dict(bnm_weight=1.0, bnm_adaptive=False),
    '_bnm_005': dict(bnm_weight=0.05, bnm_adaptive=False),
    '_abnm': dict(bnm_weight=0.05, bnm_adaptive=True),
}
FULL = [name for name in PLAIN if 'small' not in name]


def load(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def test_every_config_is_one_of_these():
    names = {f'{plain}{ending}' for plain in PLAIN for ending in SCHEMES}
    names |= {f'{plain}_adam' for plain in FULL}
    assert {path.stem for path in CONFIGS.glob('*.py')} == names


@pytest.mark.parametrize('plain', PLAIN)
def test_the_four_schemes_differ_in_the_loss_alone(plain):
    first = load(plain).to_dict()
    assert first['model'].pop('loss') == dict(type='CountingLoss', **SCHEMES[''])
    for ending, options in SCHEMES.items():
        config = load(f'{plain}{ending}').to_dict()
        assert config['model'].pop('loss') == dict(type='CountingLoss', **options)
        assert config == first


@pytest.mark.parametrize('plain', PLAIN)
def test_a_config_builds_what_it_names_and_survives_a_dump(plain, tmp_path):
    config = load(f'{plain}_abnm')
    write_shanghaitech_layout(tmp_path / 'st', [3], [2], size=(300, 320))
    write_ucf_cc_50_layout(tmp_path / 'ucf', [2] * 50, size=(32, 32))
    root = tmp_path / ('ucf' if 'ucf' in plain else 'st')
    for loader in ('train', 'val', 'test'):
        dataset = config[f'{loader}_dataloader'].dataset
        assert dataset.split == ('train' if loader == 'train' else 'test')
        for step in dataset.pipeline:
            if step.type == 'LoadDensityMap':
                step.cache_dir = None
                # As CSRNet's paper: fixed for part B, adaptive elsewhere.
                fixed = 'shanghaitech_b' in plain
                assert step.kernel == ('fixed' if fixed else 'adaptive')
                assert step.get('sigma', 15.0) == 15.0
        item = DATASETS.build({**dataset, 'data_root': str(root)})[0]
        rows, columns = item['data_samples'].gt_density.shape
        assert item['inputs'].shape[1] in range(8 * rows - 7, 8 * rows + 1)
        if 'small_shanghaitech' in plain:
            # At half size 128 x 128 pixels of a crop remain, 150 x 160 of an image.
            want = (16, 16) if loader == 'train' else (19, 20)
            assert (rows, columns) == want
    assert METRICS.build(config.test_evaluator).default_prefix == 'count'
    assert config.visualizer.type in VISUALIZERS
    config.model.frontend_init_cfg = None
    model = MODELS.build({**config.model, 'width': 1 / 16})
    assert model.loss_density.proportion is not None
    config = load(plain)
    config.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == config.to_dict()


@pytest.mark.parametrize('plain', FULL)
def test_full_configs_follow_the_authors_recipe(plain):
    config = load(plain)
    assert config.optim_wrapper.optimizer == dict(
        type='SGD', lr=1e-7, momentum=0.95, weight_decay=5e-4
    )
    assert config.train_dataloader.batch_size == 1
    assert config.train_cfg.max_epochs == 4 * 400
    assert config.model.frontend_init_cfg.checkpoint == 'torchvision://vgg16'
    assert 'width' not in config.model
    adam = load(f'{plain}_adam')
    assert adam.optim_wrapper.optimizer == dict(type='Adam', lr=1e-5, weight_decay=5e-4)
    adam.optim_wrapper = config.optim_wrapper
    assert adam.to_dict() == config.to_dict()
