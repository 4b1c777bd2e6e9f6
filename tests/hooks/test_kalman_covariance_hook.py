"""Life of the hook in mmengine's Runner, on a tiny set of generated scenes."""

from contextlib import nullcontext
from pathlib import Path
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.runner import Runner

from daal_mmdet.hooks import KalmanCovarianceHook
from daal_mmdet.hooks.kalman_covariance_hook import CHECKPOINT_KEY
from tests.hooks.test_adapters import SIZE, build, make_features, make_samples
from tests.test_training import data_root, make_config  # noqa: F401

ROOT = Path(__file__).parents[2]
LOSS = 'bbox_head.loss_bbox'


@pytest.fixture
def config(data_root, tmp_path):  # noqa: F811
    """Make a config of four epochs with four iterations each."""

    def make(name, epochs=4, covariance='diag'):
        config = make_config(
            'retinanet_mobilenetv2_focal.py', data_root, tmp_path / name
        )
        config.model.bbox_head.loss_bbox = dict(
            type='UncertaintyAwareSmoothL1', beta=0.1
        )
        config.custom_hooks = [dict(type='KalmanCovarianceHook', covariance=covariance)]
        config.train_dataloader.batch_size = 4
        config.train_dataloader.pop('batch_sampler', None)
        config.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
        config.train_cfg = dict(
            type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=99
        )
        for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
            config[key] = None
        config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
        config.log_processor.by_epoch = True
        return config

    return make


def bank_of(runner):
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, KalmanCovarianceHook))
    return hook.trackers[LOSS].bank


def ema_of(runner):
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    return SimpleNamespace(model=hook.ema_model.module)


def train(config):
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def assert_same(got, want):
    assert got.keys() == want.keys()
    for key, value in want.items():
        if torch.is_tensor(value):
            assert torch.equal(got[key], value), key
        else:
            assert got[key] == value, key


def test_resumed_training_ends_bit_for_bit_where_the_unbroken_one_does(
    config, tmp_path
):
    def averaged(*args, **kwargs):
        made = config(*args, covariance='full', **kwargs)
        made.optim_wrapper.accumulative_counts = 2
        made.custom_hooks.append(dict(type='EMAHook'))
        return made

    unbroken = train(averaged('unbroken'))
    bank = bank_of(unbroken)
    assert bank.visits.sum() > 16

    train(averaged('first', epochs=2))
    second = averaged('second')
    second.resume = True
    second.load_from = str(tmp_path / 'first' / 'epoch_2.pth')
    resumed = train(second)
    for got, want in ((resumed, unbroken), (ema_of(resumed), ema_of(unbroken))):
        assert_same(got.model.state_dict(), want.model.state_dict())
    assert_same(bank_of(resumed).state_dict(), bank.state_dict())


@pytest.mark.parametrize('tracked', [False, True])
@pytest.mark.parametrize('part', ['loss_cls', 'loss_bbox', 'train_step'])
def test_a_training_that_was_broken_off_leaves_no_filters(config, part, tracked):
    """As in a notebook, where the model is trained once more after Ctrl-C."""
    made = config('broken', epochs=1)
    first = Runner.from_cfg(made)
    loss = first.model.bbox_head.loss_bbox

    def stop(*_):
        if loss.tracker.bank.iterations == 1:
            raise KeyboardInterrupt

    # Before the first box loss of an iteration, after it, and after all.
    stopping = {
        'loss_cls': first.model.bbox_head.loss_cls,
        'loss_bbox': loss,
        'train_step': first.model,
    }[part].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    stopping.remove()
    old = loss.tracker
    assert old.bank.iterations == 1
    made = config('again', epochs=1)
    if not tracked:
        made.custom_hooks = []
    again = Runner.from_cfg(made)
    again.model = first.model
    expected = nullcontext()
    if not tracked:
        expected = pytest.warns(UserWarning, match='nothing tracks a covariance')
    with expected:
        again.train()
    assert loss.tracker is None
    assert 'get_targets' not in vars(first.model.bbox_head)
    assert old.bank.iterations == 1
    if tracked:
        assert bank_of(again).iterations == 4


def test_what_a_checkpoint_holds_and_who_may_load_it(config, tmp_path):
    runner = train(config('first', epochs=1))
    path = tmp_path / 'first' / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    assert list(checkpoint[CHECKPOINT_KEY]) == [LOSS]
    assert_same(
        {k: v for k, v in checkpoint[CHECKPOINT_KEY][LOSS].items() if k != 'keys'},
        bank_of(runner).state_dict(),
    )
    # After training the model is plain again.
    assert runner.model.bbox_head.loss_bbox.tracker is None
    assert 'get_targets' not in vars(runner.model.bbox_head)

    # A config with another box loss and no hook loads and resumes it.
    plain = config('plain', epochs=2)
    plain.model.bbox_head.loss_bbox = dict(type='L1Loss')
    plain.custom_hooks = []
    plain.update(load_from=str(path), resume=True)
    train(plain)
    assert CHECKPOINT_KEY not in torch.load(
        tmp_path / 'plain' / 'epoch_2.pth', weights_only=False
    )

    # Only a resume restores the filters.
    loaded = config('loaded', epochs=1)
    loaded.load_from = str(path)
    fresh = bank_of(train(loaded))
    assert fresh.visits.sum() < 2 * bank_of(runner).visits.sum()

    # And one from a checkpoint without them says that they start anew.
    late = config('late', epochs=3)
    late.update(load_from=str(tmp_path / 'plain' / 'epoch_2.pth'), resume=True)
    train(late)
    (log,) = (tmp_path / 'late').glob('*/*.log')
    assert 'the checkpoint holds no filters, so they start anew' in log.read_text()


def test_resuming_with_another_covariance_is_refused(config, tmp_path):
    train(config('first', epochs=1))
    second = config('second', covariance='full')
    second.update(load_from=str(tmp_path / 'first' / 'epoch_1.pth'), resume=True)
    with pytest.raises(
        ValueError, match=f"{LOSS}: covariance: the saved filters are 'diag', these are"
    ):
        train(second)


def test_a_loss_that_the_checkpoint_does_not_know_is_refused(config, tmp_path):
    train(config('first', epochs=1))
    path = tmp_path / 'first' / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    saved = checkpoint[CHECKPOINT_KEY]
    saved['other.loss_bbox'] = saved.pop(LOSS)
    torch.save(checkpoint, path)
    second = config('second')
    second.update(load_from=str(path), resume=True)
    with pytest.raises(ValueError, match=f'no filters of {LOSS}, only of .*other'):
        train(second)


def test_accumulated_gradients_and_an_average_of_the_weights(config):
    accumulated = config('run', epochs=1)
    accumulated.optim_wrapper.accumulative_counts = 2
    accumulated.custom_hooks.append(dict(type='EMAHook'))
    runner = train(accumulated)
    # The filters step in each iteration, and those of the average never.
    assert ema_of(runner).model.bbox_head.loss_bbox.tracker is None
    scalars = runner.message_hub.log_scalars['train/kalman_log_det_0'].data[0]
    assert len(scalars) == 4


def test_images_of_several_sizes_share_the_slots_of_the_first(config):
    several = config('run', epochs=2)
    pipeline = several.train_dataloader.dataset.pipeline
    (at,) = (i for i, step in enumerate(pipeline) if step.type == 'Resize')
    sizes = [(96, 64), (160, 128), (64, 96), (128, 160)]
    pipeline[at] = dict(
        type='RandomChoiceResize', scales=sizes, resize_type='Resize', keep_ratio=False
    )
    several.train_dataloader.batch_size = 2
    runner = Runner.from_cfg(several)
    seen, forward = [], type(runner.model.bbox_head).forward

    def see(head, feats):
        seen.append([tuple(level.shape[-2:]) for level in feats])
        return forward(head, feats)

    runner.model.bbox_head.forward = MethodType(see, runner.model.bbox_head)
    runner.train()
    assert len({grids[0] for grids in seen}) > 1
    bank = bank_of(runner)
    assert [level[1:] for level in bank.levels] == seen[0]
    assert bank.iterations == len(seen) == 16
    assert bank.log_det(torch.arange(len(bank))).isfinite().all()


def test_a_model_without_the_loss_is_refused_before_training(config):
    without = config('run')
    without.model.bbox_head.loss_bbox = dict(type='L1Loss')
    with pytest.raises(ValueError, match='has no UncertaintyAwareSmoothL1 or'):
        train(without)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision_keeps_the_filters_in_single(config, dtype):
    cut = config('run', epochs=1)
    runner = Runner.from_cfg(cut)
    hook = HOOKS.build(dict(type='KalmanCovarianceHook'))
    hook._connect(runner.model)
    batch = next(iter(runner.build_dataloader(cut.train_dataloader)))
    data = runner.model.data_preprocessor(batch, training=True)
    with torch.autocast('cpu', dtype=dtype):
        losses = runner.model(**data, mode='loss')
    total = sum(sum(value) for value in losses.values())
    assert total.isfinite()
    total.backward()
    hook.after_train_iter(runner, 0)
    bank = hook.trackers[LOSS].bank
    assert bank.mean.dtype == torch.float32
    assert bank.visits.sum() > 0
    assert bank.log_det(torch.arange(len(bank))).isfinite().all()


def test_banks_of_several_heads_are_their_own(config):
    two_stage = config('run', epochs=1)
    path = ROOT / 'configs' / '_base_' / 'models' / 'faster_rcnn_mobilenetv2.py'
    two_stage.model = Config.fromfile(path).model
    loss = dict(type='UncertaintyAwareSmoothL1', beta=0.1)
    two_stage.model.rpn_head.loss_bbox = loss
    two_stage.model.roi_head.bbox_head.loss_bbox = loss
    runner = train(two_stage)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, KalmanCovarianceHook))
    assert list(hook.trackers) == ['rpn_head.loss_bbox', 'roi_head.bbox_head.loss_bbox']
    for tracker in hook.trackers.values():
        assert tracker.bank.visits.sum() > 0
    scalars = MessageHub.get_current_instance().log_scalars
    names = {name for name in scalars if 'kalman' in name}
    assert names == {
        f'train/kalman_{head}_log_det_{level}'
        for head, levels in (('rpn_head', 4), ('roi_head.bbox_head', 3))
        for level in range(levels)
    }


def connected(model, iteration=0, saved=None):
    """A hook on a model that no runner trains, and the runner that it sees."""
    hook, runner = KalmanCovarianceHook(), SimpleNamespace(model=model, iter=iteration)
    if saved is not None:
        hook.after_load_checkpoint(runner, saved)
    hook.before_train(runner)
    return hook, runner


def test_a_loss_that_is_called_late_gets_its_filters_then(shipped_config, hub):
    def make():
        config = shipped_config('yolox/yolox_tiny_8xb8-300e_coco.py')
        loss = dict(type='UncertaintyAwareSmoothL1', beta=0, reduction='sum')
        model = build(config, loss_l1=loss)
        model['bbox_head'].init_weights()
        return model

    model = make()
    hook, runner = connected(model)
    (tracker,) = hook.trackers.values()
    features = make_features((8, 16, 32), 96)
    for use_l1 in (False, True):
        model['bbox_head'].use_l1 = use_l1
        model['bbox_head'].loss(features, make_samples())
        hook.after_train_iter(runner, 0)
        assert len(tracker.bank.levels) == (3 if use_l1 else 0)
        assert ('train/kalman_log_det_2' in hub.log_scalars) == use_l1
        assert bool(tracker.bank.visits.sum() > 0) == use_l1
        saved = {}
        hook.before_save_checkpoint(runner, saved)
        resumed, _ = connected(make(), iteration=1, saved=saved)
        (restored,) = resumed.trackers.values()
        assert_same(restored.state_dict(), tracker.state_dict())


def test_a_student_is_measured_and_its_teacher_is_not(shipped_config):
    config = shipped_config(
        'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    )
    detector = config.model.detector
    detector.backbone.init_cfg = None
    loss = dict(type='UncertaintyAwareSmoothL1', beta=0.0)
    detector.rpn_head.loss_bbox = detector.roi_head.bbox_head.loss_bbox = loss
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    hook, runner = connected(model)
    names = ('sup', 'unsup_teacher', 'unsup_student')
    for iteration in range(2):
        images = {name: torch.randn(1, 3, SIZE, SIZE) for name in names}
        samples = {name: make_samples(1) for name in names}
        for sample in sum(samples.values(), []):
            sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
        model.loss(images, samples)
        hook.after_train_iter(runner, iteration)
    assert len(hook.trackers) == 4
    for name, tracker in hook.trackers.items():
        measured = bool(tracker.bank.visits.sum() > 0)
        assert measured == name.startswith('student.'), name


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (
            dict(covariance='dense'),
            ValueError,
            r"covariance: .*\('diag', 'full'\), got 'dense'",
        ),
        (dict(process_noise=-1), ValueError, 'process_noise: expected a value >= 0'),
        (dict(measurement_noise=0), ValueError, 'measurement_noise: .* > 0, got 0'),
        (dict(initial_variance='1'), TypeError, "initial_variance: .* got '1'"),
        (dict(forgetting=1.5), ValueError, 'forgetting: .* <= 1, got 1.5'),
        (
            dict(noise_prior=0),
            ValueError,
            'noise_prior: expected a value > 0, got 0',
        ),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        KalmanCovarianceHook(**options)
