"""End to end on the generated data: a config, a Runner, and a resume."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import Runner

from daal_mmdet.datasets.long_tail_scenes import LongTailScenes, make_long_tail

CONFIGS = Path(__file__).parents[1] / 'configs' / 'long_tail'
ITERATIONS = 6


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    make_long_tail(
        folder,
        LongTailScenes(
            num_train=16, num_val=6, num_test=0, image_size=(96, 96), min_instances=1
        ),
    )
    return folder


def make_config(name, data_root, work_dir, max_iters=ITERATIONS):
    """A config of ours, cut down to seconds."""
    config = Config.fromfile(CONFIGS / name)
    config.work_dir = str(work_dir)
    config.experiment_name = work_dir.name
    for part in ('train', 'val'):
        loader = config[f'{part}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(data_root)
        # mmengine saves no random state: a resumed run would draw other flips.
        loader.dataset.pipeline = [
            step for step in loader.dataset.pipeline if step.type != 'RandomFlip'
        ]
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (96, 96)
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        config[key] = None
    annotations = data_root / 'annotations'
    config.val_evaluator.update(
        ann_file=str(annotations / 'val.json'),
        train_ann_file=str(annotations / 'train.json'),
    )
    config.train_cfg.update(max_iters=max_iters, val_interval=ITERATIONS)
    config.param_scheduler = [
        {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': ITERATIONS}
    ]
    config.default_hooks.checkpoint = {
        'type': 'CheckpointHook',
        'interval': ITERATIONS // 2,
        'by_epoch': False,
    }
    config.default_hooks.logger.interval = 1
    # Few iterations: no score is high yet. No Adam: it blows rounding up to full steps.
    config.model.test_cfg.score_thr = 0.0
    config.optim_wrapper.optimizer = {'type': 'SGD', 'lr': 0.01}
    config.optim_wrapper.paramwise_cfg = None
    config.randomness = {'seed': 7, 'deterministic': True}
    return config


def make_daal_config(data_root, work_dir, max_iters=ITERATIONS):
    """The DAAL config with every adaptive part switched on."""
    config = make_config(
        'retinanet_mobilenetv2_daal.py', data_root, work_dir, max_iters
    )
    config.model.bbox_head.loss_cls.bnm_weight = 0.05
    return config


def test_daal_trains_evaluates_and_shows_its_scalars(data_root, tmp_path):
    config = make_daal_config(data_root, tmp_path / 'run')
    runner = Runner.from_cfg(config)
    runner.train()

    loss = runner.model.bbox_head.loss_cls
    # The last iteration is still gathered when training ends.
    assert loss.class_balance.num_measurements == ITERATIONS - 1
    assert loss.proportion.num_measurements == ITERATIONS - 1
    scalars = MessageHub.get_current_instance().log_scalars
    for name in ('task', 'bnm', 'lambda', 'gain', 'min_weight', 'max_weight'):
        values, _ = scalars[f'train/daal_{name}'].data
        assert len(values) >= ITERATIONS - 1
    assert {'val/coco/bbox_mAP', 'val/coco/bbox_mAP_few'} <= set(scalars)


def test_resumed_training_ends_bit_for_bit_where_the_unbroken_one_does(
    data_root, tmp_path
):
    unbroken = Runner.from_cfg(make_daal_config(data_root, tmp_path / 'unbroken'))
    unbroken.train()

    first = make_daal_config(data_root, tmp_path / 'first', ITERATIONS // 2)
    Runner.from_cfg(first).train()
    second = make_daal_config(data_root, tmp_path / 'second')
    second.resume = True
    second.load_from = str(tmp_path / 'first' / f'iter_{ITERATIONS // 2}.pth')
    resumed = Runner.from_cfg(second)
    resumed.train()

    got, want = resumed.model.state_dict(), unbroken.model.state_dict()
    assert got.keys() == want.keys()
    differing = [key for key in want if not torch.equal(got[key], want[key])]
    assert differing == []
