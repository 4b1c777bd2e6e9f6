"""What is looked at before a tool starts, by the text of what it says."""

import errno
import os
import re
import tempfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from daal_mmdet.config_hash import config_hash
from daal_mmdet.preflight import (
    require_checkpoint,
    require_data,
    require_output_folder,
    require_picture,
    require_weights,
)

CONFIGS = Path(__file__).parents[1] / 'configs'


def loader_of(**dataset):
    return Config({'train_dataloader': {'dataset': dataset}, 'data_hint': 'Make them.'})


@pytest.mark.parametrize(
    ('dataset', 'message'),
    [
        (dict(ann_file='a.json'), "ann_file: there is no file 'a.json'"),
        (
            dict(data_root='x', ann_file='a.json'),
            "ann_file: there is no file 'x/a.json'",
        ),
        (
            dict(type='Wrapper', dataset=dict(ann_file='a.json')),
            "ann_file: there is no file 'a.json'",
        ),
        (dict(series='a.csv'), "series: there is no file 'a.csv'"),
        (dict(data_root='x', split='train'), "data_root: there is no folder 'x'"),
    ],
)
def test_missing_data_end_with_the_key_and_the_hint(
    dataset, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    text = re.escape(f'train_dataloader.dataset.{message}')
    with pytest.raises(SystemExit, match=rf'^{text}\. Make them\.$'):
        require_data(loader_of(**dataset), 'train')
    config = loader_of(**dataset)
    config.pop('data_hint')
    with pytest.raises(SystemExit, match=f'^{text}$'):
        require_data(config, 'train')
    # There now.
    (tmp_path / 'x').mkdir()
    for name in ('a.json', 'a.csv', 'x/a.json'):
        (tmp_path / name).touch()
    require_data(loader_of(**dataset), 'train')


def test_missing_files_of_metrics_end_with_the_key_and_the_hint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics = [
        dict(type='CocoMetric', ann_file='s3://bucket/val.json'),
        dict(type='CocoMetric', ann_file='val.json', backend_args=dict(backend='p')),
        dict(type='FewClassCocoMetric', ann_file='a.json', train_ann_file='b.json'),
    ]
    (tmp_path / 'a.json').touch()
    for given, place in (
        (metrics, r'\[2\]'),
        (metrics[2], ''),
        (dict(type='Evaluator', metrics=metrics), r'\.metrics\[2\]'),
        (dict(metrics=metrics[2]), r'\.metrics'),
    ):
        config = Config({'test_evaluator': given, 'data_hint': 'Make them.'})
        require_data(config, 'val')
        with pytest.raises(
            SystemExit,
            match=rf'^test_evaluator{place}\.train_ann_file: there is no file '
            r"'b\.json'\. Make them\.$",
        ):
            require_data(config, 'test')


def test_data_that_are_no_local_files_are_left_alone():
    for dataset in (
        dict(series='statsmodels:sunspots'),
        dict(series=[1.0, 2.0]),
        dict(data_root='s3://bucket', ann_file='a.json'),
        dict(ann_file='a.json', backend_args=dict(backend='petrel')),
        dict(type='ConcatDataset', datasets=[dict(ann_file='a.json')]),
    ):
        require_data(loader_of(**dataset), 'train')
    require_data(Config({'val_dataloader': None}), 'val')
    require_data(Config({'val_evaluator': dict(ann_file='')}), 'val')
    # A loop of one's own may take several.
    require_data(Config({'val_dataloader': [dict(dataset=dict(type='A'))]}), 'val')
    require_data(Config({'val_dataloader': dict(dataset=[dict(type='A')])}), 'val')
    require_data(Config({}), 'val')


def test_an_annotation_file_may_be_a_folder_or_none(tmp_path):
    (tmp_path / 'x' / 'texts').mkdir(parents=True)
    root = str(tmp_path / 'x')
    for dataset in (
        dict(data_root=root, ann_file='texts/'),
        dict(data_root=root, ann_file=''),
        dict(data_root=root, ann_file=['a', 'b']),
        dict(ann_file=''),
    ):
        require_data(loader_of(**dataset), 'train')
    with pytest.raises(SystemExit, match="data_root: there is no folder 'no'"):
        require_data(loader_of(data_root='no', ann_file=''), 'train')
    with pytest.raises(SystemExit, match='series: there is no file'):
        require_data(loader_of(series=root), 'train')
    with pytest.raises(SystemExit, match='evaluator.ann_file: there is no file'):
        require_data(Config({'val_evaluator': dict(ann_file=root)}), 'val')


@pytest.mark.parametrize(
    ('path', 'place'),
    [
        ('coco/retinanet_r50_1x_daal.py', 'data/coco'),
        ('lvis/faster_rcnn_r50_2x_daal.py', 'data/lvis_v1'),
        ('lvis/mask_rcnn_r50_1x_daal.py', 'data/lvis_v1'),
        ('counting/csrnet_shanghaitech_a_abnm.py', 'data/ShanghaiTech'),
        ('counting/csrnet_small_shanghaitech_b.py', 'data/ShanghaiTech'),
        ('counting/csrnet_small_ucf_cc_50.py', 'data/UCF_CC_50'),
    ],
)
def test_shipped_configs_say_where_their_data_go(path, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(CONFIGS / path)
    for part in ('train', 'val'):
        with pytest.raises(SystemExit, match=rf'there is no .* \S+" {place}$'):
            require_data(config, part)
    # What a run computes is the same without the hint.
    before = config_hash(config)
    config.pop('data_hint')
    assert config_hash(config) == before


def test_missing_weights_are_named(tmp_path, monkeypatch):
    def config(start, **values):
        return Config({'model': {'backbone': {'init_cfg': start}}, **values})

    there = tmp_path / 'there.pth'
    there.touch()
    monkeypatch.delenv('BACKBONE_CHECKPOINT', raising=False)
    start = dict(type='Pretrained', checkpoint='no.pth')
    key = r'model\.backbone\.init_cfg\.checkpoint'
    with pytest.raises(SystemExit, match=rf"^{key}: there is no file 'no\.pth'$"):
        require_weights(config(start))
    monkeypatch.setenv('BACKBONE_CHECKPOINT', 'no.pth')
    with pytest.raises(
        SystemExit, match=r"^BACKBONE_CHECKPOINT: there is no file 'no\.pth'$"
    ):
        require_weights(config(start))
    with pytest.raises(SystemExit, match=r"^load_from: there is no file 'other\.pth'$"):
        require_weights(config(None, load_from='other.pth'))
    monkeypatch.delenv('BACKBONE_CHECKPOINT')
    for key, model in {
        r'model\.init_cfg': dict(init_cfg=start),
        # As configs of the new style name it.
        r'model\.neck\.init_cfg': dict(
            neck=dict(init_cfg=dict(start, type='mmengine.model.PretrainedInit'))
        ),
        r'model\.backbone\.init_cfg\[1\]': dict(
            backbone=dict(init_cfg=[dict(type='Kaiming'), start])
        ),
        r'model\.detector\.roi_head\.bbox_head\[0\]\.init_cfg': dict(
            detector=dict(roi_head=dict(bbox_head=[dict(init_cfg=start)]))
        ),
    }.items():
        with pytest.raises(SystemExit, match=rf'^{key}\.checkpoint: there is no file'):
            require_weights(Config({'model': model}))
    for sound in (
        dict(start, checkpoint=str(there)),
        dict(start, checkpoint='torchvision://resnet50'),
        dict(type='Kaiming', layer='Conv2d'),
        [dict(type='Kaiming', layer='Conv2d')],
        None,
    ):
        require_weights(config(sound, load_from=str(there)))
    require_weights(Config({}))


def test_weights_may_lie_at_home_as_for_mmengine(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    start = dict(type='Pretrained', checkpoint='~/there.pth')
    config = Config({'model': {'backbone': {'init_cfg': start}}})
    with pytest.raises(SystemExit, match="there is no file '~/there.pth'"):
        require_weights(config)
    torch.save({'state_dict': {}}, tmp_path / 'there.pth')
    require_weights(config)
    require_checkpoint('load_from', '~/there.pth')
    # Nobody's home.
    with pytest.raises(SystemExit, match=r"there is no file '~who\.pth'"):
        require_checkpoint('load_from', '~who.pth')
    torch.save([], tmp_path / 'list.pth')
    with pytest.raises(SystemExit, match=r"^load_from: ~/list\.pth can't be read: "):
        require_checkpoint('load_from', '~/list.pth')


@pytest.fixture
def read_only_folder():
    """A folder that may not be written to; root becomes another user meanwhile."""
    # Not in tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield Path(folder)
        if root:
            os.seteuid(0)
        os.chmod(folder, 0o755)


def test_a_read_only_folder_is_named(read_only_folder):
    for folder in (read_only_folder, read_only_folder / 'run'):
        with pytest.raises(
            SystemExit,
            match=rf"^--out: '{folder}' cannot be written to \(Permission denied\); "
            'name another folder$',
        ):
            require_output_folder('--out', folder)


@pytest.mark.parametrize('code', [errno.EROFS, errno.ENOSPC])
def test_a_file_system_that_takes_nothing_is_named(tmp_path, monkeypatch, code):
    def refuse(dir):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    with pytest.raises(
        SystemExit, match=rf'cannot be written to \({os.strerror(code)}\); name another'
    ):
        require_output_folder('--out', tmp_path)


def test_a_folder_that_can_not_be_written_to_is_named(tmp_path):
    (tmp_path / 'file').touch()
    for folder, reason in (
        (tmp_path / 'file', 'Not a directory'),
        (tmp_path / 'file' / 'a' / 'b', 'Not a directory'),
        (Path('/proc/a'), 'No such file or directory'),
    ):
        with pytest.raises(
            SystemExit,
            match=rf"^--out: '{folder}' cannot be written to \({reason}\); name "
            'another folder$',
        ):
            require_output_folder('--out', folder)
    require_output_folder('--out', tmp_path / 'a' / 'b')
    require_output_folder('--out', tmp_path)
    # Neither the folder nor a probe stays.
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_picture_needs_an_ending_that_says_its_format(tmp_path):
    for name in ('a.xyz', 'a'):
        path = tmp_path / name
        text = rf"^--plot: expected a file that ends in one of \[.*'png'.*got '{path}'$"
        with pytest.raises(SystemExit, match=text):
            require_picture('--plot', path)
    for name in ('a.png', 'a.PDF', 'new/a.svg'):
        require_picture('--plot', tmp_path / name)
    with pytest.raises(SystemExit, match="^--plot: '/proc/a' cannot be written to"):
        require_picture('--plot', '/proc/a/b.png')
