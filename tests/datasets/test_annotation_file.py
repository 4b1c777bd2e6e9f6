import copy
import json

import pytest

from daal_mmdet.datasets.annotation_file import (
    clean_annotations,
    file_name,
    read_annotations,
)

GOOD = {
    'images': [{'id': 1, 'width': 50, 'height': 40, 'file_name': 'a.jpg'}],
    'categories': [{'id': 7, 'name': 'cat'}],
    'annotations': [
        {
            'id': 3,
            'image_id': 1,
            'category_id': 7,
            'bbox': [1, 2, 9, 9],
            'area': 81,
            'iscrowd': 0,
        }
    ],
}


def with_annotation(**changes):
    document = copy.deepcopy(GOOD)
    document['annotations'].append({**GOOD['annotations'][0], 'id': 4, **changes})
    return document


@pytest.mark.parametrize(
    ('changes', 'kind'),
    [
        ({'bbox': [float('nan'), 2, 9, 9]}, 'boxes without four finite numbers'),
        ({'bbox': [1, 2, float('inf'), 9]}, 'boxes without four finite numbers'),
        ({'bbox': [1, 2, 9]}, 'boxes without four finite numbers'),
        ({'bbox': None}, 'boxes without four finite numbers'),
        # Beyond float64, and beyond float32, in which mmdet trains.
        ({'bbox': [1, 2, 10**400, 9]}, 'boxes without four finite numbers'),
        ({'bbox': [-(10**400), 2, 9, 9]}, 'boxes without four finite numbers'),
        ({'bbox': [1, 2, 1e39, 9]}, 'boxes without four finite numbers'),
        ({'bbox': [1, 2, 0, 9]}, 'boxes without area'),
        ({'bbox': [1, 2, 9, -1]}, 'boxes without area'),
        ({'area': 0}, 'boxes without area'),
        ({'area': float('nan')}, 'boxes without area'),
        ({'area': 10**400}, 'boxes without area'),
        ({'bbox': [50, 2, 9, 9]}, 'boxes outside their image'),
        ({'bbox': [-9, 2, 9, 9]}, 'boxes outside their image'),
        ({'category_id': 8}, 'annotations of an unknown category'),
        ({'image_id': 2}, 'annotations of an image that is not there'),
        ({'image_id': [1]}, 'annotations without an image_id'),
        ({'image_id': None}, 'annotations without an image_id'),
        ({'category_id': [7]}, 'annotations of an unknown category'),
        ({'id': 3}, 'annotations whose id is used before'),
        ({'id': None}, 'annotations without an id'),
    ],
)
def test_a_broken_annotation_is_left_out_and_counted(changes, kind):
    document = with_annotation(**changes)
    untouched = copy.deepcopy(document)
    cleaned, cleaning = clean_annotations(document)
    assert cleaned == GOOD
    assert cleaning.counts == {kind: 1}
    assert cleaning.lines() == [
        f'left out: 1 {kind} (the first: {cleaning.examples[kind]})'
    ]
    assert str(document) == str(untouched)


@pytest.mark.parametrize('segmentation', [None, []])
def test_an_object_without_a_mask_is_broken_where_masks_are_needed(segmentation):
    document = copy.deepcopy(GOOD)
    document['annotations'][0]['segmentation'] = [[1, 2, 10, 2, 10, 11]]
    annotation = {**document['annotations'][0], 'id': 4, 'segmentation': segmentation}
    if segmentation is None:
        del annotation['segmentation']
    both = {**document, 'annotations': [*document['annotations'], annotation]}
    assert clean_annotations(both)[0] == both
    cleaned, cleaning = clean_annotations(both, masks=True)
    assert cleaned == document
    assert cleaning.lines() == [
        'left out: 1 objects without a mask (the first: annotation 4, segmentation '
        f'{segmentation})'
    ]


def test_broken_images_and_categories_take_their_annotations_along():
    document = with_annotation(image_id=2)
    document['images'] += [
        {'id': 1, 'width': 9, 'height': 9, 'file_name': 'twice.jpg'},
        {'id': 2, 'width': 9, 'height': 0, 'file_name': 'flat.jpg'},
        {'id': 3, 'width': 9, 'height': 10**400, 'file_name': 'endless.jpg'},
        {'id': 4, 'width': 9, 'height': 9, 'file_name': None},
        {'id': 5, 'width': 9, 'height': 9, 'file_name': 17},
        {'id': 6, 'width': 9, 'height': 9, 'coco_url': None},
    ]
    document['categories'] += [{'id': 7, 'name': 'dog'}, {'id': 9}]
    cleaned, cleaning = clean_annotations(document, lambda name: name == 'a.jpg')
    assert cleaned == GOOD
    assert cleaning.examples['images without a file name'] == 'id 4, file name None'
    assert cleaning.counts == {
        'images whose id is used before': 1,
        'images without a size': 2,
        'images without a file name': 3,
        'categories whose id is used before': 1,
        'categories without a name': 1,
        'annotations of an image that is not there': 1,
    }


def test_an_image_that_is_listed_but_not_there_is_left_out():
    cleaned, cleaning = clean_annotations(GOOD, lambda name: name != 'a.jpg')
    assert cleaned['images'] == cleaned['annotations'] == []
    assert cleaning.examples['images that are listed but not there'] == 'a.jpg'


def test_a_box_that_does_not_give_its_area_is_completed():
    document = copy.deepcopy(GOOD)
    del document['annotations'][0]['area']
    cleaned, cleaning = clean_annotations(document)
    assert cleaned == GOOD
    assert cleaning.lines() == [
        'completed: 1 boxes without their area, which is taken as width x height '
        '(the first: annotation 3)'
    ]
    assert 'area' not in document['annotations'][0]


@pytest.mark.parametrize('changes', [{}, {'iscrowd': None}])
def test_a_box_without_iscrowd_is_completed_and_lvis_has_none(changes):
    document = copy.deepcopy(GOOD)
    del document['annotations'][0]['iscrowd']
    document['annotations'][0].update(changes)
    cleaned, cleaning = clean_annotations(document)
    assert cleaned == GOOD
    assert cleaning.lines() == [
        'completed: 1 boxes without iscrowd, which is taken as 0 (the first: '
        'annotation 3)'
    ]
    document['images'][0]['neg_category_ids'] = []
    cleaned, cleaning = clean_annotations(document)
    assert cleaned == document
    assert cleaning.lines() == []


def test_ids_may_be_strings():
    document = copy.deepcopy(GOOD)
    document['images'][0]['id'] = document['annotations'][0]['image_id'] = 'one'
    assert clean_annotations(document)[0] == document


def test_ids_that_a_table_program_wrote_as_floats_are_taken():
    document = copy.deepcopy(GOOD)
    document['annotations'][0].update(image_id=1.0, category_id=7.0)
    assert clean_annotations(document)[1].lines() == []


def test_nothing_is_left_out_of_a_sound_document():
    cleaned, cleaning = clean_annotations(GOOD)
    assert cleaned == GOOD
    assert cleaning.lines() == []


def test_file_name_of_lvis_follows_the_host():
    url = 'http://images.cocodataset.org/train2017/000000000009.jpg'
    assert file_name({'coco_url': url}) == 'train2017/000000000009.jpg'
    assert file_name({'coco_url': url, 'file_name': 'x.jpg'}) == 'x.jpg'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (json.dumps(GOOD)[:-20], 'is no JSON, or only part of one'),
        ('', 'is no JSON, or only part of one'),
        # More digits than Python reads.
        (f'[{"9" * 5000}]', 'is no JSON, or only part of one'),
        ('\x00\xff', 'is no JSON, or only part of one'),
        # mmdet takes none.
        (f'\xef\xbb\xbf{json.dumps(GOOD)}', 'is no JSON, or .* Unexpected UTF-8 BOM'),
        ('[]', r"lacks \['images', 'annotations', 'categories'\]"),
        ('{"images": [], "categories": []}', r"lacks \['annotations'\]"),
        (
            '{"images": {}, "categories": [], "annotations": []}',
            'images is no list of objects',
        ),
    ],
)
def test_half_a_file_is_named(tmp_path, text, message):
    path = tmp_path / 'x.json'
    path.write_text(text, encoding='latin-1')
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='annotations: there is no file'):
        read_annotations(tmp_path / 'x.json')
