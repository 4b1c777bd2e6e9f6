import errno
import json
import os
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from daal_mmdet import data_check
from daal_mmdet.data_check import (
    check_data,
    require_sound_data,
    tell_wrong_names,
)
from tests.datasets.test_subset import document_of


@pytest.fixture
def config(tmp_path):
    """Four images, one class each, for training and for validation."""
    for split in ('train', 'val'):
        write(tmp_path, split, document_of([[0], [1], [0], [1]], 2))
        (tmp_path / split).mkdir()
        for i in range(4):
            Image.new('RGB', (20, 20)).save(tmp_path / split / f'{i}.jpg')
    loaders = {
        f'{split}_dataloader': {
            'dataset': {
                'type': 'CocoDataset',
                'data_root': str(tmp_path),
                'ann_file': f'{split}.json',
                'data_prefix': {'img': split},
                'metainfo': {'classes': ('c0', 'c1')},
            }
        }
        for split in ('train', 'val')
    }
    return Config({**loaders, 'work_dir': str(tmp_path / 'work')})


def write(folder, split, document):
    (folder / f'{split}.json').write_text(json.dumps(document))


def spoil(folder, split, **changes):
    document = json.loads((folder / f'{split}.json').read_text())
    document['annotations'][0].update(changes)
    write(folder, split, document)


def test_sound_files_are_left_alone(config, tmp_path, capsys):
    check_data(config)
    assert config.train_dataloader.dataset.ann_file == 'train.json'
    assert not (tmp_path / 'work').exists()
    assert capsys.readouterr().out == ''


def test_training_goes_on_without_what_is_broken(config, tmp_path, capsys):
    spoil(tmp_path, 'train', bbox=[0, 0, float('inf'), 5])
    (tmp_path / 'train' / '3.jpg').unlink()
    before = (tmp_path / 'train.json').read_bytes()
    # The wrapper of repeat-factor sampling.
    inner = config.train_dataloader.dataset
    config.train_dataloader.dataset = {'type': 'ClassBalancedDataset', 'dataset': inner}
    check_data(config)
    cleaned = tmp_path / 'work' / 'annotations' / 'train.json'
    assert config.train_dataloader.dataset.dataset.ann_file == str(cleaned)
    document = json.loads(cleaned.read_text())
    assert [image['id'] for image in document['images']] == [1, 2, 3]
    assert [a['image_id'] for a in document['annotations']] == [2, 3]
    assert (tmp_path / 'train.json').read_bytes() == before
    shown = capsys.readouterr().out
    assert 'left out: 1 boxes without four finite numbers' in shown
    assert (
        'left out: 1 images that are listed but not there (the first: 3.jpg)' in shown
    )
    assert f'training on {cleaned}' in shown


def test_a_clean_copy_is_found_from_any_data_root(config, tmp_path, monkeypatch):
    spoil(tmp_path, 'train', category_id=77)
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    config.work_dir = 'work_dirs/tiny'
    check_data(config)
    copy = tmp_path / 'here' / 'work_dirs' / 'tiny' / 'annotations' / 'train.json'
    assert config.train_dataloader.dataset.ann_file == str(copy)


def test_only_the_first_process_tells(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    spoil(tmp_path, 'train', category_id=77)
    check_data(config)
    assert config.train_dataloader.dataset.ann_file.endswith(
        'work/annotations/train.json'
    )
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'bbox': [float('nan')] * 4}, '1 boxes without four finite numbers'),
        ({'category_id': 77}, '1 annotations of an unknown category'),
        ({'id': 1}, '1 annotations whose id is used before'),
        ({'iscrowd': None}, '1 boxes without iscrowd'),
    ],
)
def test_validation_files_are_never_changed(config, tmp_path, changes, message):
    spoil(tmp_path, 'val', **changes)
    with pytest.raises(SystemExit, match=message) as error:
        check_data(config)
    assert 'val_dataloader.dataset.ann_file' in str(error.value)
    assert 'tools/make_subset.py' in str(error.value)


def test_what_the_evaluation_takes_is_told_and_taken(config, tmp_path, capsys):
    spoil(tmp_path, 'val', bbox=[0, 0, 0, 5])
    check_data(config)
    assert 'holds 1 boxes without area, which mmdet' in capsys.readouterr().out


def test_annotations_of_images_that_are_not_listed_are_passed_over(
    config, tmp_path, capsys
):
    for split in ('train', 'val'):
        spoil(tmp_path, split, image_id=77)
    message = 'holds 1 annotations of an image that is not there, which mmdet takes as '
    require_sound_data([config])
    assert capsys.readouterr().out.count(message) == 2
    check_data(config)
    shown = capsys.readouterr().out
    assert shown.count(message) == 1
    assert 'left out: 1 annotations of an image that is not there' in shown


@pytest.mark.parametrize('asked_by', ['pipeline', 'metric'])
def test_objects_without_a_mask_are_found_where_masks_are_needed(
    config, tmp_path, capsys, asked_by
):
    for split in ('train', 'val'):
        document = json.loads((tmp_path / f'{split}.json').read_text())
        for annotation in document['annotations'][1:]:
            annotation['segmentation'] = [[0, 0, 5, 0, 5, 5]]
        write(tmp_path, split, document)
    check_data(config)
    assert capsys.readouterr().out == ''
    if asked_by == 'pipeline':
        step = {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True}
        # Of the wrapper of mosaics, for example.
        inner = config.train_dataloader.dataset
        config.train_dataloader.dataset = {
            'type': 'MultiImageMixDataset',
            'dataset': {**inner, 'pipeline': [step]},
        }
        config.val_dataloader.dataset.pipeline = [step]
    else:
        config.val_evaluator = {'type': 'CocoMetric', 'metric': ['bbox', 'segm']}
    with pytest.raises(
        SystemExit,
        match=r'val\.json can\'t be used:\n  1 objects without a mask \(the first: '
        r'annotation 0, segmentation None\)\ntools/make_subset\.py writes a copy where '
        'that is mended, but for masks$',
    ):
        check_data(config)
    told = 'left out: 1 objects without a mask' in capsys.readouterr().out
    assert told == (asked_by == 'pipeline')


def test_images_that_the_pipeline_reads_from_elsewhere_are_not_looked_for(config):
    backend = {'backend': 'lmdb', 'db_path': 'images.lmdb'}
    for split in ('train', 'val'):
        dataset = config[f'{split}_dataloader'].dataset
        dataset.data_prefix = {'img': 'none'}
        dataset.pipeline = [{'type': 'LoadImageFromFile', 'backend_args': backend}]
    check_data(config)
    assert config.train_dataloader.dataset.ann_file == 'train.json'
    del config.val_dataloader.dataset.pipeline[0]['backend_args']
    with pytest.raises(SystemExit, match='4 images that are listed but not there'):
        check_data(config)


def test_an_open_vocabulary_may_be_judged_by_other_classes(config, tmp_path, capsys):
    write(tmp_path, 'train', document_of([[0], [2]], 3))
    write(tmp_path, 'val', document_of([[0], [1], [2]], 3))
    config.train_dataloader.dataset.metainfo = {'classes': ('c0', 'c2')}
    config.val_dataloader.dataset.metainfo = {'classes': ('c0', 'c1', 'c2')}
    with pytest.raises(SystemExit, match="number 1 is 'c2' in train: .*'c1' in val: "):
        check_data(config)
    config.model = {'language_model': {}, 'bbox_head': {'num_classes': 256}}
    check_data(config)


def test_a_missing_validation_image_is_found_before_the_training(config, tmp_path):
    (tmp_path / 'val' / '2.jpg').unlink()
    with pytest.raises(
        SystemExit, match=r'1 images that are listed but not there.*2\.jpg'
    ):
        check_data(config)


def test_boxes_without_a_class_are_counted(config, tmp_path, capsys):
    config.train_dataloader.dataset.metainfo = {'classes': ('c0', 'typo')}
    config.val_dataloader.dataset.metainfo = {'classes': ('c0', 'typo')}
    check_data(config)
    shown = capsys.readouterr().out
    assert "2 boxes are passed over, since the data set names no class 'c1'" in shown
    assert "there is no category 'typo'" in shown
    config.train_dataloader.dataset.metainfo = {'classes': ('typo',)}
    with pytest.raises(SystemExit, match='nothing is left of'):
        check_data(config)


@pytest.mark.parametrize('kind', ['CocoDataset', 'LVISV1Dataset'])
def test_files_that_number_the_classes_differently_are_an_error(config, tmp_path, kind):
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].dataset.type = kind
    document = json.loads((tmp_path / 'val.json').read_text())
    document['categories'].reverse()
    write(tmp_path, 'val', document)
    with pytest.raises(
        SystemExit, match="number 0 is 'c0' in train: .* and 'c1' in val: "
    ):
        check_data(config)


def test_classes_that_only_one_file_has_come_last(config, tmp_path, capsys):
    document = json.loads((tmp_path / 'val.json').read_text())
    document['categories'].append({'id': 30, 'name': 'c2'})
    write(tmp_path, 'val', document)
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].dataset.metainfo.classes = ('c0', 'c1', 'c2')
    check_data(config)
    config.train_dataloader, config.val_dataloader = (
        config.val_dataloader, config.train_dataloader,
    )  # fmt: skip
    capsys.readouterr()
    check_data(config)
    assert "there is no category 'c2', or its data set" in capsys.readouterr().out


@pytest.mark.parametrize(
    ('classes', 'number', 'called', 'name'),
    [(('c1', 'c0'), 0, 'c1', 'c0'), (('c0', 'gone', 'c1'), 1, 'gone', 'c1')],
)
def test_names_in_another_order_than_the_file_has_are_told(
    config, tmp_path, capsys, classes, number, called, name
):
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].dataset.metainfo.classes = classes
    check_data(config)
    printed = capsys.readouterr().out
    for split in ('train', 'val'):
        source = tmp_path / f'{split}.json'
        assert (
            f'{split}_dataloader.dataset.metainfo.classes: number {number} is '
            f'{called!r} there and {name!r} in {source}, from which mmdet numbers the '
            'classes. Pictures and DetInferencer show wrong names, and AP is of the '
            'right labels only if all files have that order; write the names in the '
            'order of the files' in printed
        )
    tell_wrong_names(config, 'val')
    assert capsys.readouterr().out == printed[printed.index('val_dataloader') :]


@pytest.mark.parametrize('text', ['{"images": [], "categories": []}', '{', None])
def test_names_of_a_file_without_annotations_are_not_told(
    config, tmp_path, capsys, text
):
    if text is None:
        (tmp_path / 'val.json').unlink()
    else:
        (tmp_path / 'val.json').write_text(text)
    tell_wrong_names(config, 'val')
    config.val_dataloader.dataset.type = 'VOCDataset'
    tell_wrong_names(config, 'val')
    assert capsys.readouterr().out == ''


def test_a_head_of_too_few_classes_is_an_error(config):
    config.model = {'bbox_head': {'num_classes': 1}}
    message = (
        r'model\.bbox_head\.num_classes: expected 2, the classes of train_dataloader\.'
        r"dataset, got 1: 'c1' would be trained as background"
    )
    with pytest.raises(SystemExit, match=message):
        check_data(config)
    # Stages of a cascade.
    heads = [{'num_classes': 2}, {'num_classes': 1}]
    config.model = {'roi_head': {'bbox_head': heads}}
    message = r'model\.roi_head\.bbox_head\[1\]\.num_classes: expected 2'
    with pytest.raises(SystemExit, match=message):
        check_data(config)
    # Several heads of regions, as in Co-DETR.
    config.model = {'roi_head': [{'bbox_head': {'num_classes': 1}}]}
    message = r'model\.roi_head\[0\]\.bbox_head\.num_classes: expected 2'
    with pytest.raises(SystemExit, match=message):
        check_data(config)


def test_a_head_of_more_classes_is_told(config, capsys):
    config.model = {'bbox_head': {'num_classes': 80}}
    check_data(config)
    assert (
        'model.bbox_head.num_classes: 80, and train_dataloader.dataset has 2 classes, '
        "'c0', 'c1'; the others have no objects" in capsys.readouterr().out
    )
    # Classes that the file lacks count; a default and columns that are words do not.
    config.train_dataloader.dataset.metainfo.classes = ('c0', 'c1', 'c2')
    for model in (
        {'bbox_head': {'num_classes': 3}},
        {'bbox_head': {}},
        {'language_model': {}, 'bbox_head': {'num_classes': 1}},
        {'rpn_head': {'num_classes': 1}},
    ):
        config.model = model
        check_data(config)
        assert 'num_classes' not in capsys.readouterr().out


def test_other_numberings_are_left_alone(config, tmp_path):
    """Objects365 sorts its categories, since its own two files disagree."""
    document = json.loads((tmp_path / 'val.json').read_text())
    document['categories'].reverse()
    write(tmp_path, 'val', document)
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].dataset.type = 'Objects365V1Dataset'
    check_data(config)
    assert config.train_dataloader.dataset.ann_file == 'train.json'


def test_classes_come_from_the_data_set_or_a_file(config, tmp_path, capsys):
    (tmp_path / 'classes.txt').write_text('c0\nc1\n')
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].dataset.metainfo = {
            'classes': str(tmp_path / 'classes.txt')
        }
    check_data(config)
    assert capsys.readouterr().out == ''
    # Those of COCO itself, none of which is here.
    del config.train_dataloader.dataset['metainfo']
    with pytest.raises(SystemExit, match='nothing is left of'):
        check_data(config)


def test_a_validation_box_without_its_area_is_an_error(config, tmp_path):
    spoil(tmp_path, 'val', area=None)
    with pytest.raises(SystemExit, match=r'\n  1 boxes without their area'):
        check_data(config)


def test_a_copy_that_does_not_fit_the_disk_is_named(config, tmp_path, monkeypatch):
    spoil(tmp_path, 'train', category_id=77)

    def full(self, *args, **options):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(
        SystemExit, match=r"can't write a clean copy: .*No space left.*train\.json"
    ):
        check_data(config)
    assert list((tmp_path / 'work' / 'annotations').iterdir()) == []


def test_boxes_without_their_area_are_completed(config, tmp_path, capsys):
    document = json.loads((tmp_path / 'train.json').read_text())
    areas = [annotation.pop('area') for annotation in document['annotations']]
    write(tmp_path, 'train', document)
    check_data(config)
    cleaned = json.loads(Path(config.train_dataloader.dataset.ann_file).read_text())
    assert [a['area'] for a in cleaned['annotations']] == areas
    assert 'completed: 4 boxes without their area' in capsys.readouterr().out


def test_boxes_without_iscrowd_are_completed(config, tmp_path, capsys):
    document = json.loads((tmp_path / 'train.json').read_text())
    for annotation in document['annotations']:
        del annotation['iscrowd']
    write(tmp_path, 'train', document)
    check_data(config)
    cleaned = json.loads(Path(config.train_dataloader.dataset.ann_file).read_text())
    assert [a['iscrowd'] for a in cleaned['annotations']] == [0] * 4
    assert 'completed: 4 boxes without iscrowd' in capsys.readouterr().out


@pytest.mark.parametrize('name', [None, 17])
def test_an_image_without_a_file_name_is_left_out(config, tmp_path, capsys, name):
    for split in ('train', 'val'):
        document = json.loads((tmp_path / f'{split}.json').read_text())
        document['images'].append({'id': 5, 'width': 9, 'height': 9, 'file_name': name})
        write(tmp_path, split, document)
    with pytest.raises(
        SystemExit, match=rf'1 images without a file name \(the first: id 5, .*{name}'
    ):
        check_data(config)
    assert 'left out: 1 images without a file name' in capsys.readouterr().out


@pytest.mark.parametrize('split', ['train', 'val'])
def test_two_categories_of_one_name_are_an_error(config, tmp_path, capsys, split):
    document = json.loads((tmp_path / f'{split}.json').read_text())
    document['categories'].append({'id': 30, 'name': 'other'})
    document['categories'].append({'id': 40, 'name': 'other'})
    write(tmp_path, split, document)
    # mmdet passes over what the data set does not name.
    check_data(config)
    document['categories'][3]['name'] = 'c0'
    write(tmp_path, split, document)
    with pytest.raises(
        SystemExit,
        match=rf"{split}_dataloader.*{split}\.json: category names repeat: 'c0'",
    ):
        check_data(config)


def test_half_a_file_and_nothing_left_are_errors(config, tmp_path):
    (tmp_path / 'train.json').write_text('{"images": [')
    with pytest.raises(SystemExit, match='train_dataloader.*or only part of one'):
        check_data(config)
    write(tmp_path, 'train', document_of([[]], 2))
    with pytest.raises(SystemExit, match='nothing is left of'):
        check_data(config)
    write(tmp_path, 'train', document_of([[0]], 2))
    spoil(tmp_path, 'train', bbox=[])
    with pytest.raises(SystemExit, match='nothing is left of'):
        check_data(config)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'ignore': 1}, 'are marked ignore'),
        # Boxes in units of the image's sides, for example.
        ({'bbox': [0.2, 0.3, 0.5, 0.4]}, 'have a side of less than a pixel'),
        ({'iscrowd': 1}, 'are crowds'),
    ],
)
def test_boxes_that_nothing_is_learned_from_are_counted(
    config, tmp_path, capsys, changes, message
):
    spoil(tmp_path, 'train', **changes)
    check_data(config)
    assert f'train.json: 1 boxes {message}, and are' in capsys.readouterr().out
    assert config.train_dataloader.dataset.ann_file == 'train.json'
    document = json.loads((tmp_path / 'train.json').read_text())
    for annotation in document['annotations']:
        annotation.update(changes)
    write(tmp_path, 'train', document)
    with pytest.raises(SystemExit, match='nothing is left of'):
        check_data(config)
    assert f'4 boxes {message}' in capsys.readouterr().out


def test_a_data_set_that_forgot_its_classes_is_named(config):
    del config.val_dataloader.dataset['metainfo']
    message = (
        r"^val: \S+val\.json: of the classes of train: \S+, 'c0', 'c1', its data set "
        'takes none; metainfo.classes of each loader names what it takes$'
    )
    with pytest.raises(SystemExit, match=message):
        check_data(config)


@pytest.mark.parametrize('first', [0, 'a'])
def test_annotation_ids_that_matching_can_not_count_with_are_told(
    config, tmp_path, capsys, first
):
    document = json.loads((tmp_path / 'val.json').read_text())
    for i, annotation in enumerate(document['annotations'], start=1):
        annotation['id'] = i
    write(tmp_path, 'val', document)
    own = dict(type='FewClassCocoMetric', ann_file=str(tmp_path / 'val.json'))
    config.val_evaluator = [own, own | dict(type='CocoMetric')]
    check_data(config)
    assert capsys.readouterr().out == ''
    document['annotations'][0]['id'] = first
    write(tmp_path, 'val', document)
    check_data(config)
    shown = capsys.readouterr().out
    assert shown.count('has annotations whose id is 0 or no number') == 1
    assert f'val_evaluator[1].ann_file: {tmp_path / "val.json"} has' in shown


def test_a_metric_whose_own_file_numbers_otherwise_is_an_error(config, tmp_path):
    document = json.loads((tmp_path / 'val.json').read_text())
    same = dict(type='CocoMetric', ann_file=str(tmp_path / 'val.json'))
    config.val_evaluator = [same, dict(type='DumpResults', out_file_path='a.pkl')]
    check_data(config)
    document['categories'].reverse()
    write(tmp_path, 'other', document)
    other = tmp_path / 'other.json'
    config.val_evaluator[0].ann_file = str(other)
    key = r'val_evaluator\[0\]\.ann_file: '
    message = rf"number 0 is 'c0' in val: .* and 'c1' in {key}{other}"
    with pytest.raises(SystemExit, match=message):
        check_data(config)
    other.write_text('{"images": [')
    with pytest.raises(SystemExit, match=f'^{key}.* is no JSON'):
        check_data(config)


def test_ids_may_be_written_as_floats(config, tmp_path, capsys):
    document = json.loads((tmp_path / 'train.json').read_text())
    for annotation in document['annotations']:
        annotation.update({key: float(annotation[key]) for key in ('id', 'image_id')})
    for image in document['images']:
        image['id'] = float(image['id'])
    write(tmp_path, 'train', document)
    check_data(config)
    assert capsys.readouterr().out == ''
    document['images'][0]['id'] = float('nan')
    write(tmp_path, 'train', document)
    check_data(config)
    assert '1 images without an id' in capsys.readouterr().out


def test_where_no_file_may_be_mended_a_training_file_must_be_whole(config, tmp_path):
    config.test_dataloader = config.val_dataloader
    require_sound_data([config, config])
    spoil(tmp_path, 'train', area=None)
    with pytest.raises(
        SystemExit,
        match=r"train_dataloader\.dataset\.ann_file: \S+ can't be used:\n  1 boxes",
    ):
        require_sound_data([config])
    assert config.train_dataloader.dataset.ann_file == 'train.json'
    assert not (tmp_path / 'work').exists()
    # mmdet passes over this one.
    spoil(tmp_path, 'train', area=0)
    require_sound_data([config])


def test_where_no_file_may_be_mended_the_test_data_are_looked_at_too(config, tmp_path):
    document = json.loads((tmp_path / 'val.json').read_text())
    document['categories'].reverse()
    write(tmp_path, 'test', document)
    config.test_dataloader = config.val_dataloader.to_dict()
    config.test_dataloader.dataset.ann_file = 'test.json'
    check_data(config)
    with pytest.raises(SystemExit, match="number 0 is 'c0' in train: .*'c1' in test: "):
        require_sound_data([config])


def test_equal_data_are_read_once_for_all_runs(config, monkeypatch):
    read = []

    def note(path):
        read.append(path.name)
        return original(path)

    original = data_check.read_annotations
    monkeypatch.setattr(data_check, 'read_annotations', note)
    other = config.to_dict() | {'model': {'bbox_head': {'num_classes': 1}}}
    require_sound_data([config, config])
    assert read == ['train.json', 'val.json']
    with pytest.raises(SystemExit, match='expected 2, the classes of train_dataloader'):
        require_sound_data([config, Config(other)])


@pytest.mark.parametrize('kind', ['Objects365V2Dataset', 'LVISV05Dataset'])
def test_images_that_mmdet_renames_are_not_looked_for(config, tmp_path, kind):
    document = json.loads((tmp_path / 'train.json').read_text())
    for image in document['images']:
        image['file_name'] = f'COCO_train2014_{image["file_name"]}'
    write(tmp_path, 'train', document)
    config.pop('val_dataloader')
    with pytest.raises(SystemExit, match='nothing is left of .*; --no-data-check'):
        check_data(config)
    config.train_dataloader.dataset.type = kind
    spoil(tmp_path, 'train', bbox=[0, 0, float('inf'), 5])
    check_data(config)
    made = json.loads(Path(config.train_dataloader.dataset.ann_file).read_text())
    assert len(made['images']) == 4
    assert len(made['annotations']) == 3


def test_panoptic_files_are_left_alone(config, tmp_path):
    document = json.loads((tmp_path / 'train.json').read_text())
    document['annotations'] = [dict(image_id=0, segments_info=[dict(id=1, bbox=[])])]
    write(tmp_path, 'train', document)
    config.train_dataloader.dataset.type = 'CocoPanopticDataset'
    check_data(config)
    assert config.train_dataloader.dataset.ann_file == 'train.json'


def test_other_data_sets_are_left_alone(config, tmp_path, capsys):
    spoil(tmp_path, 'train', bbox=[0, 0, float('inf'), 5])
    config.train_dataloader.dataset.type = 'VOCDataset'
    config.val_dataloader.dataset.ann_file = 's3://bucket/val.json'
    check_data(config)
    assert config.train_dataloader.dataset.ann_file == 'train.json'
    assert capsys.readouterr().out == ''
