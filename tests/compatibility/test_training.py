"""Five families end to end through tools/train.py: train, evaluate, resume."""

from pathlib import Path

import pytest
import torch
import train as train_tool
from mmengine.config import Config
from mmengine.logging import MessageHub

from daal_mmdet.compatibility.shrinking import shrink_model
from daal_mmdet.datasets.long_tail_scenes import CLASSES, LongTailScenes, make_long_tail

CONFIGS = Path(__file__).parents[2] / 'configs'
SIZE = (96, 96)
NUM_IMAGES, BATCH_SIZE = 4, 2
ITERATIONS = NUM_IMAGES // BATCH_SIZE


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    scenes = LongTailScenes(
        num_train=NUM_IMAGES, num_val=4, num_test=0, image_size=SIZE, min_instances=1
    )
    return make_long_tail(folder, scenes, progress=False)


def loader(data_root, part, **dataset):
    """A loader of mmdet's CocoDataset without any augmentation."""
    return dict(
        batch_size=BATCH_SIZE,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=part == 'train'),
        dataset=dict(
            type='CocoDataset',
            data_root=f'{data_root}/',
            ann_file=f'annotations/{part}.json',
            data_prefix=dict(img=f'{part}/'),
            metainfo=dict(classes=CLASSES),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=SIZE, keep_ratio=True),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='PackDetInputs'),
            ],
            **dataset,
        ),
    )


def write_config(name, data_root, path):
    """One of our configs, made small, on the generated data; for one epoch."""
    config = Config.fromfile(CONFIGS / name)
    model = config.model.to_dict()
    shrink_model(model)
    two_stage = 'roi_head' in model
    head = model['roi_head']['bbox_head'] if two_stage else model['bbox_head']
    head['num_classes'] = len(CLASSES)
    head['loss_cls']['bnm_weight'] = 0.05
    # Whatever is learned so soon, there are detections to evaluate.
    test_cfg = model['test_cfg']
    test_cfg.get('rcnn', test_cfg)['score_thr'] = 0.0
    config.model = model
    evaluator = dict(
        type='FewClassCocoMetric',
        ann_file=f'{data_root}/annotations/val.json',
        train_ann_file=f'{data_root}/annotations/train.json',
        groups='terciles',
        metric='bbox',
    )
    train, val = loader(data_root, 'train'), loader(data_root, 'val', test_mode=True)
    config.train_dataloader, config.val_dataloader = train, val
    config.val_evaluator = evaluator
    config.test_dataloader = config.test_evaluator = config.test_cfg = None
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    config.param_scheduler = []
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = 1
    # Switching to a pipeline without mosaic makes no sense on plain images.
    config.custom_hooks = [
        hook for hook in config.custom_hooks if 'Switch' not in hook['type']
    ]
    config.auto_scale_lr = None
    config.dump(path)


@pytest.mark.parametrize(
    'name',
    [
        'retinanet/retinanet_r50_fpn_1x_coco',
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        'rtmdet/rtmdet_tiny_8xb32-300e_coco',
        'yolox/yolox_s_8xb8-300e_coco',
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
    ],
)
def test_a_family_trains_evaluates_and_resumes(name, data_root, tmp_path):
    path, work = tmp_path / 'config.py', tmp_path / 'work'
    write_config(f'{name}_daal_uncertainty.py', data_root, path)
    train_tool.main([str(path), '--work-dir', str(work)])
    first = torch.load(work / 'epoch_1.pth', weights_only=False)
    train_tool.main(
        [str(path), '--work-dir', str(work), '--resume']
        + ['--cfg-options', 'train_cfg.max_epochs=2']
    )
    second = torch.load(work / 'epoch_2.pth', weights_only=False)
    assert second['meta']['iter'] == 2 * ITERATIONS
    assert 'resumed epoch: 1' in max(work.glob('*/*.log')).read_text()
    for number, checkpoint in enumerate((first, second), 1):
        # With a moving average mmengine keeps the trained model there.
        state = checkpoint.get('ema_state_dict', checkpoint['state_dict'])
        measured = [
            value.item()
            for key, value in state.items()
            if key.endswith('loss_cls.class_balance.num_measurements')
        ]
        # The last iteration of a run is measured when the next one begins.
        assert measured == [number * ITERATIONS - 1]
        assert checkpoint['kalman_covariance']
    hub = MessageHub.get_current_instance()
    for scalar in ('loss', 'loss_cls', 'daal_max_weight', 'daal_lambda'):
        values, _ = hub.get_scalar(f'train/{scalar}').data
        assert len(values) >= ITERATIONS
        assert all(value == value and abs(value) < 1e6 for value in values)
    assert 'val/coco/bbox_mAP' in hub.log_scalars
