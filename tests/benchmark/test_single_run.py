import json

import mmengine
import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import Hook

from daal_mmdet.benchmark import (
    ProgressFileHook,
    RepeatableTrainingHook,
    single_run,
)
from daal_mmdet.benchmark.checkpoints import latest_whole_checkpoint
from daal_mmdet.benchmark.evaluation_record import evaluation_record
from daal_mmdet.benchmark.single_run import main, train_and_evaluate
from daal_mmdet.config_hash import config_hash
from daal_mmdet.logged_scalars import read_scalars

RETINANET = 'retinanet_mobilenetv2_daal'
FASTER_RCNN = 'faster_rcnn_mobilenetv2_ce'

ITERATIONS = dict(
    train_cfg=dict(
        _delete_=True, type='IterBasedTrainLoop', max_iters=4, val_interval=9
    ),
    log_processor=dict(by_epoch=False),
    train_dataloader=dict(sampler=dict(type='InfiniteSampler')),
)
EPOCHS = dict(train_cfg=dict(max_epochs=2, val_begin=9))


@pytest.fixture
def bccd_config(small_coco, request):
    """A config of BCCD, augmented by one worker process."""
    folder = request.config.rootpath / 'configs' / 'bccd'
    return lambda name: small_coco(Config.fromfile(folder / f'{name}.py'))


@pytest.fixture
def config(bccd_config):
    return bccd_config('retinanet_mobilenetv2_daal')


@pytest.fixture
def stop_hook():
    """A hook that ends a training before an iteration, as a kill does."""

    @HOOKS.register_module(force=True)
    class StopForTest(Hook):
        priority = 'HIGHEST'

        def __init__(self, before: int) -> None:
            self.before = before

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == self.before:
                raise KeyboardInterrupt

    yield 'StopForTest'
    HOOKS.module_dict.pop('StopForTest')


@pytest.mark.parametrize(
    ('detector', 'loop', 'stop', 'name', 'kernel'),
    [
        (RETINANET, ITERATIONS, 3, 'iter_4.pth', 'bbox_head.cls_convs.0.conv.weight'),
        (RETINANET, EPOCHS, 4, 'epoch_2.pth', 'bbox_head.cls_convs.0.conv.weight'),
        # It samples its rows at random. RoIAlign reads contiguous maps alone.
        (FASTER_RCNN, ITERATIONS, 3, 'iter_4.pth', 'rpn_head.rpn_conv.weight'),
    ],
    ids=['iterations', 'epochs', 'two stages'],
)
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    bccd_config, stop_hook, tmp_path, detector, loop, stop, name, kernel
):
    config = bccd_config(detector)

    def run(folder, hooks=()):
        made = Config(config.to_dict())
        made.merge_from_dict(json.loads(json.dumps(loop)))
        made.custom_hooks = list(hooks)
        (tmp_path / folder).mkdir(exist_ok=True)
        return train_and_evaluate(made, tmp_path / folder)

    whole = run('whole')
    with pytest.raises(KeyboardInterrupt):
        run('cut', [dict(type=stop_hook, before=stop)])
    assert not (tmp_path / 'cut' / name).exists()
    cut = run('cut')
    for folder in ('whole', 'cut'):
        assert (tmp_path / folder / 'progress').read_text() == '1.000000'
    weights = [
        torch.load(tmp_path / folder / name, weights_only=False)['state_dict']
        for folder in ('whole', 'cut')
    ]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    laid_out = weights[0][kernel].is_contiguous(memory_format=torch.channels_last)
    assert laid_out is (detector == RETINANET and not torch.cuda.is_available())
    for part in ('val', 'test'):
        assert cut[part] == whole[part]
        assert set(cut[part]['class_AP']) == {'a', 'b', 'c'}
    assert whole['iterations'] == cut['iterations'] == stop + stop % 2 + (stop == 4) * 2
    assert whole['seconds_per_iteration'] > 0
    assert whole['versions']['torch'] == torch.__version__
    # Nothing that json lacks.
    json.dumps(whole, allow_nan=False)


@pytest.fixture
def batch_hook():
    """A hook that notes the weights and the images that each iteration begins with."""
    seen = []

    @HOOKS.register_module(force=True)
    class NoteForTest(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            weights = runner.model.backbone.conv1.conv.weight.sum().item()
            images = torch.stack(data_batch['inputs']).sum(dim=(1, 2, 3))
            # A loss or a head may draw any number.
            seen.append((weights, images.tolist(), torch.rand(()).item()))

    yield 'NoteForTest', seen
    HOOKS.module_dict.pop('NoteForTest')


def test_one_seed_gives_all_losses_the_same_start_images_and_random_numbers(
    config, batch_hook, tmp_path
):
    name, seen = batch_hook
    noted = {}
    for loss, seed in (('DAALLoss', 0), ('GHMC', 0), ('DAALLoss', 1)):
        made = Config(config.to_dict())
        made.merge_from_dict(json.loads(json.dumps(ITERATIONS)))
        made.train_cfg.max_iters = 3
        made.randomness.seed = seed
        made.custom_hooks = [dict(type=name)]
        if loss == 'GHMC':
            made.model.bbox_head.loss_cls = dict(type='GHMC', use_sigmoid=True)
        folder = tmp_path / f'{loss}{seed}'
        folder.mkdir()
        train_and_evaluate(made, folder)
        noted[loss, seed] = list(seen)
        seen.clear()
    daal, ghmc, other = noted.values()
    assert len(daal) == 3
    assert daal[0] == ghmc[0]
    # The weights part, the images and random numbers do not.
    assert [row[1:] for row in daal] == [row[1:] for row in ghmc]
    assert daal[2][0] != ghmc[2][0]
    for one, another in zip(daal, other, strict=True):
        assert all(a != b for a, b in zip(one, another, strict=True))


def test_a_truncated_checkpoint_is_passed_over(tmp_path):
    assert latest_whole_checkpoint(tmp_path) is None
    for epoch in (9, 10, 11):
        torch.save(dict(weights=torch.rand(1000)), tmp_path / f'epoch_{epoch}.pth')
    cut = tmp_path / 'epoch_11.pth'
    cut.write_bytes(cut.read_bytes()[:1500])
    (tmp_path / 'epoch_12_ema.pth').write_bytes(b'')
    assert latest_whole_checkpoint(tmp_path) == tmp_path / 'epoch_10.pth'
    # The folder may be that of a training that is going on.
    assert cut.stat().st_size == 1500
    (tmp_path / 'epoch_10.pth').write_bytes(b'')
    assert latest_whole_checkpoint(tmp_path) == tmp_path / 'epoch_9.pth'


def test_a_config_that_a_resumed_training_left_is_trained_from_its_start(
    config, tmp_path, monkeypatch
):
    def stop(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(single_run, 'build_runner', stop)
    config.resume = True
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config, tmp_path)
    assert config.resume is False
    torch.save(dict(meta={}), tmp_path / 'epoch_1.pth')
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config, tmp_path)
    assert (config.resume, config.load_from) == (True, str(tmp_path / 'epoch_1.pth'))


def test_its_hooks_are_found_whatever_the_default_scope(config, tmp_path, monkeypatch):
    """New-style configs of mmdet have none."""
    monkeypatch.setattr(single_run, 'build_runner', lambda made: made.custom_hooks)
    monkeypatch.setattr(single_run, 'run_on_cpu', lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_and_evaluate(config, tmp_path)
    hooks = [mmengine.registry.HOOKS.build(hook) for hook in config.custom_hooks[-2:]]
    assert [type(hook) for hook in hooks] == [RepeatableTrainingHook, ProgressFileHook]


def test_a_run_of_another_hash_than_planned_is_refused(config, tmp_path, capsys):
    config.dump(tmp_path / 'planned.py')
    with pytest.raises(SystemExit):
        main([str(tmp_path / 'planned.py'), str(tmp_path), '--hash', 'another'])
    expected = f'expected another, got {config_hash(config)}: code or data changed'
    assert expected in capsys.readouterr().err
    assert not (tmp_path / 'lock').exists()


def test_metrics_are_sorted():
    metrics = {
        'coco/bbox_mAP': 0.2,
        'coco/bbox_mAP_few': -1.0,
        'coco/a_precision': 0.4,
        'coco/b_precision': float('nan'),
        'coco/data_time': 3.0,
    }
    assert evaluation_record(metrics, ['a', 'b']) == {
        'mAP': 0.2,
        'mAP_few': None,
        'class_AP': {'a': 0.4, 'b': None},
    }
    # The file may have no category of it.
    record = evaluation_record(metrics, ['a', 'c'])
    assert record['class_AP'] == {'a': 0.4, 'c': None}
    with pytest.raises(ValueError, match=r"got none of \['c'\]; .* classwise=True"):
        evaluation_record(metrics, ['c'])


@pytest.mark.parametrize('prefix', ['', 'coco/', 'hidden/coco/'])
def test_classes_may_have_a_slash_in_their_names(prefix):
    metrics = {
        f'{prefix}bbox_mAP': 0.3,
        f'{prefix}fork/knife_precision': 0.2,
        f'{prefix}knife_precision': 0.4,
        'time': 1.0,
    }
    assert evaluation_record(metrics, ['knife', 'fork/knife']) == {
        'mAP': 0.3,
        'class_AP': {'knife': 0.4, 'fork/knife': 0.2},
    }
    with pytest.raises(ValueError, match=r"got none of \['fork'\]"):
        evaluation_record(metrics, ['fork'])


@pytest.mark.parametrize('key', ['lvis/bbox_AP', 'coco/segm_mAP', 'pascal_voc/mAP'])
def test_another_evaluation_is_no_record(key):
    with pytest.raises(ValueError, match=rf"expected bbox_mAP, .* got \['{key}'\]"):
        evaluation_record({key: 0.3}, ['a'])


def test_a_model_that_detects_nothing_has_an_ap_of_zero(config, tmp_path):
    config.merge_from_dict(json.loads(json.dumps(ITERATIONS)))
    config.train_cfg.update(max_iters=2, val_interval=1)
    config.model.test_cfg.score_thr = 1.0
    config.pop('default_hooks')
    for part in ('val', 'test'):
        data = config[f'{part}_evaluator']
        made = dict(type='CocoMetric', ann_file=data.ann_file, classwise=True)
        config[f'{part}_evaluator'] = made
    record = train_and_evaluate(config, tmp_path)
    for part in ('val', 'test'):
        items = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
        assert {0.0} <= {record[part][item] for item in items} <= {0.0, None}
        assert set(record[part]['class_AP'].values()) <= {0.0, None}
    assert record['test']['mAP'] == 0
    logged = read_scalars(tmp_path).validations
    assert [(entry['step'], entry['coco/bbox_mAP']) for entry in logged] == [
        (1, 0),
        (2, 0),
    ]
    # In the log of a training elsewhere it is not there.
    record = evaluation_record({}, ['a', 'b'])
    assert record['mAP'] == record['mAP_s'] == 0
    assert record['class_AP'] == {'a': 0, 'b': 0}
