import json
import shutil

import pytest

from daal_mmdet.datasets.coco_layout import find_coco_layout

CATEGORIES = [dict(id=7, name='cat'), dict(id=3, name='dog')]


def _document(name, categories=CATEGORIES):
    return dict(
        images=[dict(id=1, file_name=name, width=8, height=6)],
        annotations=[
            dict(id=1, image_id=1, category_id=3, bbox=[0, 0, 4, 4], area=16),
            dict(
                id=2, image_id=1, category_id=3, bbox=[1, 0, 4, 4], area=16, iscrowd=0
            ),
            dict(
                id=3, image_id=1, category_id=7, bbox=[1, 0, 4, 4], area=16, iscrowd=1
            ),
        ],
        categories=categories,
    )


def _write(root, annotations='annotations/{}.json', images='{}', **documents):
    for split in ('train', 'val'):
        file = root / annotations.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        name = f'{split}_a.jpg'
        file.write_text(json.dumps(documents.get(split, _document(name))))
        folder = root / images.format(split)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return root


@pytest.mark.parametrize(
    'annotations', ['annotations/{}.json', 'annotations/instances_{}2017.json']
)
@pytest.mark.parametrize(
    'images', ['{}', '{}2017', 'images/{}', 'images/{}2017', 'images']
)
def test_every_layout_is_found(tmp_path, annotations, images):
    layout = find_coco_layout(_write(tmp_path, annotations, images))
    assert layout.classes == ('cat', 'dog')
    for name, split in (('train', layout.train), ('val', layout.val)):
        assert split.ann_file == tmp_path / annotations.format(name)
        assert split.image_dir == tmp_path / images.format(name)
        assert split.image_sizes == ((8, 6),)
        assert split.instance_counts == (0, 2)
        assert split.image_counts == (0, 1)


def test_labels_are_numbered_as_mmdet_does(tmp_path):
    from mmdet.datasets import CocoDataset

    layout = find_coco_layout(_write(tmp_path))
    dataset = CocoDataset(
        ann_file=str(layout.train.ann_file),
        pipeline=[],
        data_prefix=dict(img=str(layout.train.image_dir)),
        metainfo=dict(classes=layout.classes),
    )
    labels = {
        i['bbox_label']
        for i in dataset.get_data_info(0)['instances']
        if not i['ignore_flag']
    }
    assert [layout.classes[label] for label in labels] == ['dog']


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere is not a folder'):
        find_coco_layout(tmp_path / 'nowhere')


def test_no_annotations_lists_what_was_looked_for(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=(
            r'no train annotations: looked for .*annotations/train\.json and '
            r'.*annotations/instances_train2017\.json; .*annotations does not exist'
        ),
    ):
        find_coco_layout(tmp_path)
    _write(tmp_path)
    (tmp_path / 'annotations' / 'val.json').rename(
        tmp_path / 'annotations' / 'valid.json'
    )
    with pytest.raises(
        FileNotFoundError,
        match=(r"no val annotations: .* holds \['train\.json', 'valid\.json'\]"),
    ):
        find_coco_layout(tmp_path)


def test_no_images_lists_where_they_were_looked_for(tmp_path):
    _write(tmp_path)
    shutil.rmtree(tmp_path / 'val')
    with pytest.raises(
        FileNotFoundError,
        match=(
            r'val\.json names the image val_a\.jpg: looked for it in '
            r'.*/val, .*/val2017, .*/images/val, .*/images/val2017, .*/images'
        ),
    ):
        find_coco_layout(tmp_path)


def test_some_images_missing(tmp_path):
    document = _document('train_a.jpg')
    document['images'] += [
        dict(id=i, file_name=f'lost_{i}.jpg', width=8, height=6) for i in range(2, 7)
    ]
    _write(tmp_path, train=document)
    with pytest.raises(
        FileNotFoundError,
        match=(
            r'5 of the 6 images that .*train\.json names are not in .*/train: '
            r'lost_2\.jpg, lost_3\.jpg, lost_4\.jpg and 2 more'
        ),
    ):
        find_coco_layout(tmp_path)


def test_splits_with_other_categories(tmp_path):
    other = [*CATEGORIES, dict(id=9, name='owl')]
    _write(tmp_path, val=_document('val_a.jpg', other))
    with pytest.raises(ValueError, match=r"they differ in \[\(9, 'owl'\)\]"):
        find_coco_layout(tmp_path)


def test_splits_with_categories_in_another_order(tmp_path):
    _write(tmp_path, val=_document('val_a.jpg', CATEGORIES[::-1]))
    with pytest.raises(ValueError, match='they differ in their order'):
        find_coco_layout(tmp_path)


def test_repeated_class_names(tmp_path):
    twice = [dict(id=3, name='cat'), dict(id=7, name='cat')]
    _write(
        tmp_path,
        train=_document('train_a.jpg', twice),
        val=_document('val_a.jpg', twice),
    )
    with pytest.raises(ValueError, match=r"category names repeat: \['cat'\]"):
        find_coco_layout(tmp_path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"images": [', r'train\.json is no JSON'),
        ('[]', r"no COCO detection file: it lacks \['images', 'annotations',"),
        (
            '{"images": [], "annotations": [], "categories": [{}]}',
            r'train\.json: images is empty',
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [], '
            '"categories": []}',
            r"images lack \['width', 'height'\]: \{'id': 1, 'file_name': 'a'\}",
        ),
        (
            '{"images": [1], "annotations": [], "categories": []}',
            'images is no list of',
        ),
    ],
)
def test_files_that_are_no_annotations(tmp_path, content, message):
    _write(tmp_path)
    (tmp_path / 'annotations' / 'train.json').write_text(content)
    with pytest.raises(ValueError, match=message):
        find_coco_layout(tmp_path)
