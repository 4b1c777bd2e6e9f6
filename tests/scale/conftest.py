"""A training of seconds on generated data, and processes to run it in."""

import multiprocessing
import os
import socket
import sys
import traceback
from pathlib import Path

import pytest
import torch
import train as train_tool

from daal_mmdet.datasets.long_tail_scenes import LongTailScenes, make_long_tail

CONFIGS = Path(__file__).parents[2] / 'configs'
SIZE = (64, 64)

# An eighth of the width of MobileNetV2, and all that this project adds to a training.
TINY = """
_base_ = '{base}'
data_root = '{data}/'
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(backend_args=dict(backend='whole_file'), max_keep_ckpts=2))
custom_hooks = [
    dict(type='CheckInvalidLossHook', interval=1),
    dict(type='IterationSeedHook'),
    dict(type='FiniteCheckpointHook'),
    dict(type='KalmanCovarianceHook')]
model = dict(
    backbone=dict(widen_factor=0.125, norm_eval=True),
    neck=dict(in_channels=[8, 16, 40], out_channels=16),
    bbox_head=dict(
        in_channels=16, feat_channels=16, stacked_convs=1,
        norm_cfg=dict(num_groups=4),
        loss_cls=dict(type='DAALLoss'),
        loss_bbox=dict(type='UncertaintyAwareSmoothL1', beta=0.1)),
    test_cfg=dict(score_thr=0.0, max_per_img=20))
train_pipeline = [
    dict(type='LoadImageOrSkip'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale={size}, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
loader = dict(batch_size=4, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(data_root=data_root, pipeline=train_pipeline), **loader)
val_dataloader = dict(dataset=dict(data_root=data_root), **loader)
val_evaluator = dict(
    ann_file=data_root + 'annotations/val.json',
    train_ann_file=data_root + 'annotations/train.json')
test_dataloader = None
test_evaluator = None
test_cfg = None
train_cfg = dict(
    _delete_=True, type='EpochBasedTrainLoop', max_epochs={epochs},
    val_interval={epochs})
default_hooks['checkpoint']['by_epoch'] = True
default_hooks['checkpoint']['interval'] = 1
log_processor = dict(by_epoch=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=6)]
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
randomness = dict(seed=5, deterministic=True)
"""


@pytest.fixture(autouse=True)
def _one_thread():
    """Forked processes must not wait for threads that were not forked along."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """Eight training and four validation images."""
    folder = tmp_path_factory.mktemp('scale') / 'scenes'
    arguments = LongTailScenes(
        num_train=8, num_val=4, num_test=0, image_size=SIZE, min_instances=1
    )
    return make_long_tail(folder, arguments, progress=False)


@pytest.fixture
def tiny_config(scenes, tmp_path):
    """Write the config; ``extra`` is more Python at its end."""

    def write(epochs=2, extra='', data=scenes, name='tiny'):
        path = tmp_path / f'{name}.py'
        base = CONFIGS / 'long_tail' / 'retinanet_mobilenetv2_daal.py'
        text = TINY.format(base=base, data=data, size=SIZE, epochs=epochs)
        path.write_text(text + extra)
        return path

    return write


def _train(log, environment, prepare, arguments):
    with open(log, 'a', buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        # pytest has put its own in their place.
        sys.stdout = sys.stderr = file
        os.environ.update(environment)
        code = 0
        try:
            if prepare is not None:
                prepare()
            train_tool.main(list(map(str, arguments)))
        except SystemExit as error:
            print(error, file=sys.stderr)
            code = 2
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def start_training():
    """Start ``tools/train.py`` in a forked process, which has everything imported."""
    started = []

    def start(log, *arguments, prepare=None, **environment):
        process = multiprocessing.get_context('fork').Process(
            target=_train, args=(log, environment, prepare, arguments)
        )
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            process.kill()
            process.join()


@pytest.fixture
def run_training(start_training):
    """Run it to its end, which must be a good one."""

    def run(log, *arguments, **options):
        process = start_training(log, *arguments, **options)
        process.join(timeout=300)
        assert process.exitcode == 0, Path(log).read_text()[-3000:]

    return run


def _free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture
def run_two_processes(start_training):
    """Run it in two processes, as torchrun would start them."""

    def run(log, *arguments, **options):
        port = str(_free_port())
        processes = [
            start_training(
                f'{log}.{rank}',
                *arguments,
                '--launcher',
                'pytorch',
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE='2',
                MASTER_ADDR='127.0.0.1',
                MASTER_PORT=port,
                **options,
            )
            for rank in range(2)
        ]
        for rank, process in enumerate(processes):
            process.join(timeout=300)
            text = Path(f'{log}.{rank}').read_text()
            assert process.exitcode == 0, text[-3000:]

    return run
