import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import test as test_tool
import torch
import train as train_tool
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from PIL import Image

from daal_mmdet.cli import load_config

CLASSES = ('cat', 'dog')
CONFIG = """
_base_ = '{base}'
data_root = '{root}/'
metainfo = dict(classes=('cat', 'dog'))
model = dict(bbox_head=dict(num_classes=2, loss_cls=dict(type='DAALLoss')))
custom_imports = None
img = dict(
    data_root=data_root,
    ann_file='data.json',
    data_prefix=dict(img=''),
    metainfo=metainfo)
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=img)
train_dataloader = dict(drop_last=False, **loader)
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_epochs=1, val_interval=1)
val_evaluator = dict(
    ann_file=data_root + 'data.json', train_ann_file=data_root + 'data.json')
test_evaluator = val_evaluator
"""


@pytest.fixture
def config_file(tmp_path, request):
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(4):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
        images.append({'id': i, 'file_name': f'{i}.png', 'width': 64, 'height': 64})
        annotations.append(
            {
                'id': i + 1,
                'image_id': i,
                'category_id': i % 2 + 1,
                'bbox': [10, 12, 30, 20],
                'area': 600,
                'iscrowd': 0,
            }
        )
    categories = [{'id': i, 'name': name} for i, name in enumerate(CLASSES, start=1)]
    document = {'images': images, 'annotations': annotations, 'categories': categories}
    (tmp_path / 'data.json').write_text(json.dumps(document))
    base = (
        request.config.rootpath / 'configs' / 'bccd' / 'retinanet_mobilenetv2_focal.py'
    )
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG.format(base=base, root=tmp_path))
    return path


def test_train_resume_and_test(config_file, tmp_path, capsys):
    work = tmp_path / 'work'
    common = [str(config_file), '--work-dir', str(work), '--cfg-options']
    train_tool.main([*common, 'default_hooks.logger.interval=1'])
    dumped = Config.fromfile(work / 'tiny.py')
    # The dumped config alone knows the losses.
    assert dumped.custom_imports['imports'] == ['daal_mmdet']
    assert (work / 'epoch_1.pth').is_file()

    train_tool.main([*common, 'train_cfg.max_epochs=2', '--resume'])
    assert (work / 'epoch_2.pth').is_file()
    log = max(work.glob('*/*.log')).read_text()
    assert 'resumed epoch: 1' in log

    wider = 'model.neck.out_channels=32', 'model.bbox_head.in_channels=32'
    reason = r'epoch_2\.pth is of another model than the config: .*mismatch for neck\.'
    for asked, how in (
        ('--resume', ['--resume', str(work / 'epoch_2.pth')]),
        ('--resume', ['--resume']),
        ('resume', []),
    ):
        options = [*wider, 'train_cfg.max_epochs=3']
        if not how:
            options += ['resume=True', f'load_from={work / "epoch_2.pth"}']
        with pytest.raises(SystemExit, match=f'^{asked}: .*{reason}'):
            train_tool.main([*common, *options, *how])
    assert not (work / 'epoch_3.pth').exists()

    out = tmp_path / 'out.pkl'
    arguments = [str(config_file), str(work / 'epoch_2.pth'), '--work-dir', str(work)]
    shown = tmp_path / 'shown'
    for extra in ([], ['--tta'], ['--show-dir', str(shown)]):
        out.unlink(missing_ok=True)
        test_tool.main([*arguments, '--out', str(out), *extra])
        predictions = pickle.loads(out.read_bytes())
        assert [p['img_id'] for p in predictions] == [0, 1, 2, 3]
    assert sorted(p.name for p in shown.iterdir()) == [f'{i}.png' for i in range(4)]
    assert 'was trained with' not in capsys.readouterr().out

    document = json.loads((tmp_path / 'data.json').read_text())
    document['categories'].reverse()
    (tmp_path / 'test.json').write_text(json.dumps(document))
    options = ['ann_file=test.json', 'metainfo.classes=dog,cat']
    options = [f'test_dataloader.dataset.{option}' for option in options]
    test_tool.main([*arguments, '--cfg-options', *options])
    assert (
        "epoch_2.pth was trained with 'cat' as class number 0, and "
        "test_dataloader.dataset has 'dog' there" in capsys.readouterr().out
    )


def test_augmentation_that_the_config_names_is_taken(config_file):
    config = Config.fromfile(config_file)
    config.tta_model = {'type': 'DetTTAModel', 'tta_cfg': {'max_per_img': 7}}
    config.tta_pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'TestTimeAug'}]
    detector = config.model
    test_tool.use_test_time_augmentation(config)
    assert config.model.tta_cfg.max_per_img == 7
    assert config.model.module == detector
    assert config.test_dataloader.dataset.pipeline == config.tta_pipeline


def test_data_that_can_not_be_augmented_end_the_test(config_file, weights):
    save, state = weights
    key = 'test_dataloader.dataset'
    arguments = [str(config_file), save(state), '--tta', '--cfg-options']
    for changes, message in (
        (
            [f'{key}.type=ConcatDataset', f'{key}.pipeline=None'],
            f'^--tta: expected {key} to be, or to wrap, one data set with a pipeline, '
            "got .*'ConcatDataset'",
        ),
        (
            [f'{key}.pipeline.3.type=PackCrowdInputs'],
            rf'^--tta: expected {key}\.pipeline to end in PackDetInputs, got '
            "'PackCrowdInputs'; give tta_model and tta_pipeline in the config$",
        ),
    ):
        with pytest.raises(SystemExit, match=message):
            test_tool.main([*arguments, *changes])


def test_amp_and_scaled_learning_rate_reach_the_config(
    config_file, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)  # of the default work dir
    built = []

    class Recorder:
        def train(self):
            pass

    def build(config):
        built.append(config)
        return Recorder()

    monkeypatch.setattr(train_tool, 'build_runner', build)
    monkeypatch.setattr(train_tool, 'run_on_cpu', lambda: False)
    train_tool.main([str(config_file), '--amp', '--auto-scale-lr'])
    (config,) = built
    assert config.optim_wrapper.type == 'AmpOptimWrapper'
    assert config.optim_wrapper.loss_scale == 'dynamic'
    assert config.auto_scale_lr.enable
    assert config.work_dir == 'work_dirs/tiny'
    assert not config.resume
    # As a config of the new style names it, once dumped.
    name = 'optim_wrapper.type=mmengine.optim.OptimWrapper'
    train_tool.main([str(config_file), '--amp', '--cfg-options', name])
    assert built[-1].optim_wrapper.type == 'AmpOptimWrapper'


def test_the_config_that_a_resumed_training_left_resumes_nothing_here(
    config_file, monkeypatch, tmp_path
):
    built = []

    def build(config):
        built.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(test_tool, 'build_runner', build)
    config_file.write_text(config_file.read_text() + "resume = True\nload_from = 'x'\n")
    weights = tmp_path / 'weights.pth'
    torch.save({'state_dict': {}}, weights)
    with pytest.raises(KeyboardInterrupt):
        test_tool.main([str(config_file), str(weights), '--work-dir', str(tmp_path)])
    assert (built[0].resume, built[0].load_from) == (False, str(weights))


def test_the_first_start_with_resume_loads_what_the_config_says(
    config_file, monkeypatch, tmp_path
):
    built = []
    monkeypatch.setattr(
        train_tool,
        'build_runner',
        lambda config: SimpleNamespace(train=lambda: built.append(config)),
    )
    pretrained = tmp_path / 'pretrained.pth'
    torch.save({'state_dict': {}}, pretrained)
    work = tmp_path / 'work'
    arguments = [str(config_file), '--work-dir', str(work), '--resume']
    arguments += ['--cfg-options', f'load_from={pretrained}']
    train_tool.main(arguments)
    (config,) = built
    assert (config.resume, config.load_from) == (False, str(pretrained))
    # A requeued job goes on from its own checkpoint.
    work.mkdir()
    parts = ('state_dict', 'message_hub', 'optimizer')
    checkpoint = dict.fromkeys(parts, {}) | {'meta': {'iter': 3}}
    torch.save(checkpoint, work / 'epoch_1.pth')
    train_tool.main(arguments)
    config = built[-1]
    assert (config.resume, config.load_from) == (True, str(work / 'epoch_1.pth'))

    # It initialises its model before it loads that.
    start = ['model.backbone.init_cfg.type=Pretrained']
    start += ['model.backbone.init_cfg.checkpoint=no.pth']
    with pytest.raises(SystemExit, match=r"init_cfg\.checkpoint: there is no file 'no"):
        train_tool.main([*arguments, *start])

    (work / 'epoch_1.pth').unlink()
    pretrained.write_bytes(pretrained.read_bytes()[:100])
    with pytest.raises(SystemExit, match="load_from: .*pth can't be read: "):
        train_tool.main(arguments)


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        (train_tool, ['nowhere.py'], "config: there is no file 'nowhere.py'"),
        (
            train_tool,
            ['{}', '--resume', 'no.pth'],
            "--resume: there is no file 'no.pth'",
        ),
        (
            train_tool,
            ['{}', '--cfg-options', 'load_from=no.pth'],
            "load_from: there is no file 'no.pth'",
        ),
        (test_tool, ['{}', 'no.pth'], "checkpoint: there is no file 'no.pth'"),
        (
            train_tool,
            ['{}', '--auto-scale-lr', '--cfg-options', 'auto_scale_lr._delete_=True'],
            '--auto-scale-lr: the config needs',
        ),
        (
            train_tool,
            ['{}', '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'],
            '--auto-scale-lr: the config needs .* has auto_scale_lr=None',
        ),
        (
            train_tool,
            ['{}', '--amp', '--cfg-options', 'optim_wrapper.type=ApexOptimWrapper'],
            "--amp: expected .*, got 'ApexOptimWrapper'",
        ),
        (
            train_tool,
            ['{}', '--cfg-options', 'train_dataloader.dataset.ann_file=no.json'],
            r'train_dataloader\.dataset\.ann_file: there is no file .*no\.json.*'
            r'prepare_voc\.py',
        ),
        (
            train_tool,
            ['{}', '--cfg-options', 'model.backbone.init_cfg.type=Pretrained']
            + ['model.backbone.init_cfg.checkpoint=no.pth'],
            r"model\.backbone\.init_cfg\.checkpoint: there is no file 'no\.pth'",
        ),
        (
            train_tool,
            ['{}', '--cfg-options', 'val_evaluator.train_ann_file=no.json'],
            r"val_evaluator\.train_ann_file: there is no file 'no\.json'.*prepare_voc",
        ),
        (
            test_tool,
            ['{}', 'x.pth', '--cfg-options', 'test_evaluator.ann_file=no.json'],
            r"test_evaluator\.ann_file: there is no file 'no\.json'.*prepare_voc",
        ),
    ],
)
def test_errors_name_what_is_missing(config_file, tool, arguments, message):
    arguments = [argument.format(config_file) for argument in arguments]
    with pytest.raises(SystemExit, match=message):
        tool.main(arguments)


def test_mixed_precision_needs_a_gpu(config_file, monkeypatch):
    monkeypatch.setattr(train_tool, 'run_on_cpu', lambda: True)
    with pytest.raises(SystemExit, match='^--amp: mixed precision needs a GPU'):
        train_tool.main([str(config_file), '--amp'])


@pytest.fixture
def weights(config_file):
    """A checkpoint of the model of the config, and its content."""
    config = Config.fromfile(config_file)
    register_all_modules()
    state = MODELS.build(config.model).state_dict()
    path = config_file.with_name('weights.pth')

    def save(state):
        torch.save({'state_dict': state, 'meta': {}}, path)
        return str(path)

    return save, state


@pytest.mark.parametrize('extra', [[], ['--tta']])
def test_a_checkpoint_of_another_model_is_not_tested(config_file, weights, extra):
    save, state = weights
    shorter = {k: v for k, v in state.items() if 'retina_' not in k}
    other = {k: v[:9] if 'retina_cls' in k else v for k, v in state.items()}
    for wrong, reason in [
        (
            shorter,
            r'it has no bbox_head\.retina_cls\.weight, bbox_head\.retina_cls\.bias, '
            r'bbox_head\.retina_reg\.weight and 1 more',
        ),
        (other, r'size mismatch for bbox_head\.retina_cls\.weight: .*\[9, .*\[12, '),
    ]:
        path = save(wrong)
        arguments = [str(config_file), path, '--work-dir', str(config_file.parent)]
        with pytest.raises(
            SystemExit,
            match=f'^checkpoint: {path} is of another model than the config: {reason}',
        ):
            test_tool.main([*arguments, *extra])


def test_a_checkpoint_of_another_loss_is_tested(config_file, weights):
    save, state = weights
    assert 'bbox_head.loss_cls.pending' in state
    # As DistributedDataParallel names them.
    state = {f'module.{k}': v for k, v in state.items() if 'loss' not in k}
    state['module.bbox_head.loss_cls.weight'] = torch.zeros(1)
    work = config_file.parent / 'work'
    test_tool.main([str(config_file), save(state), '--work-dir', str(work)])
    (log,) = work.glob('*/*.json')
    assert 'coco/bbox_mAP' in json.loads(log.read_text())


def test_a_test_file_that_numbers_other_classes_is_told(config_file, weights, capsys):
    save, state = weights
    document = json.loads((config_file.parent / 'data.json').read_text())
    document['categories'].reverse()
    (config_file.parent / 'test.json').write_text(json.dumps(document))
    arguments = [str(config_file), save(state), '--work-dir', str(config_file.parent)]
    arguments += ['--cfg-options', 'test_dataloader.dataset.ann_file=test.json']
    test_tool.main(arguments)
    assert (
        "test_dataloader.dataset.metainfo.classes: number 0 is 'cat' there and 'dog' in"
        in capsys.readouterr().out
    )


def test_predictions_need_a_folder(config_file, weights):
    save, state = weights
    (config_file.parent / 'mine').write_text('mine')
    out = config_file.parent / 'mine' / 'out.pkl'
    arguments = [str(config_file), save(state), '--work-dir', str(config_file.parent)]
    with pytest.raises(SystemExit, match="^--out: '.*mine' cannot be written to"):
        test_tool.main([*arguments, '--out', str(out)])


@pytest.mark.parametrize(
    'options',
    [
        {'data_root': 's3://bucket/', 'ann_file': 'train.json'},
        {'ann_file': 's3://bucket/train.json'},
        {'ann_file': 'x/train.json', 'backend_args': dict(backend='p', _delete_=True)},
    ],
)
def test_data_that_are_not_on_a_local_disk_are_not_looked_for(config_file, options):
    config = Config.fromfile(config_file)
    config.merge_from_dict({'train_dataloader': {'dataset': options}})
    config.dump(config_file.with_name('remote.py'))
    parsed = train_tool.parse_args([str(config_file.with_name('remote.py'))])
    made = load_config(parsed, ['train', 'val'])
    assert made.train_dataloader.dataset.ann_file.endswith('train.json')


def test_predictions_go_to_a_pickle(config_file, capsys):
    with pytest.raises(SystemExit):
        test_tool.main([str(config_file), 'x.pth', '--out', 'predictions.json'])
    message = capsys.readouterr().err
    assert (
        "--out: expected a file name ending in .pkl, got 'predictions.json'" in message
    )
