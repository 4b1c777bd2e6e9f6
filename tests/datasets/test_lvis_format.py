import pytest

from daal_mmdet.datasets.lvis_format import frequency, to_lvis, with_frequencies
from tests.datasets.test_subset import document_of


@pytest.mark.parametrize(
    ('images', 'letter'), [(0, 'r'), (10, 'r'), (11, 'c'), (100, 'c'), (101, 'f')]
)
def test_letters_follow_the_number_of_training_images(images, letter):
    assert frequency(images) == letter


def test_letters_come_from_the_training_split():
    train = document_of([[0, 0]] * 120 + [[1]] * 11 + [[2]] * 2, 4)
    val = with_frequencies(document_of([[3]], 4), train)
    assert [c['frequency'] for c in val['categories']] == ['f', 'c', 'r', 'r']
    assert [c['image_count'] for c in val['categories']] == [120, 11, 2, 0]
    assert [c['instance_count'] for c in val['categories']] == [240, 11, 2, 0]


def test_a_training_split_that_numbers_otherwise_is_refused():
    train = document_of([[0]] * 120, 3)
    train['categories'][1]['name'], train['categories'][2]['name'] = 'c2', 'c1'
    with pytest.raises(
        ValueError, match="categories differently: id 20 is 'c2' there and 'c1' here"
    ):
        with_frequencies(document_of([[0]], 3), train)
    # The order in the file does not count.
    train['categories'] = [train['categories'][i] for i in (2, 1, 0)]
    train['categories'][0]['name'], train['categories'][1]['name'] = 'c2', 'c1'
    with_frequencies(document_of([[0]], 3), train)


def test_to_lvis_has_the_keys_of_lvis():
    coco = document_of([[0, 0, 1], [2], []], 5)
    polygon = [[0, 0, 4, 0, 4, 4]]
    coco['annotations'][0].update(segmentation=polygon, area=8.0)
    lvis = to_lvis(coco, coco, 'train2017', negatives=2)
    first = lvis['images'][0]
    assert first['coco_url'] == 'http://images.cocodataset.org/train2017/0.jpg'
    for image, shown in zip(lvis['images'], [{10, 20}, {30}, set()], strict=True):
        absent = image['neg_category_ids']
        assert len(set(absent)) == 2
        assert shown.isdisjoint(absent)
        assert image['not_exhaustive_category_ids'] == []
    box, outlined, *_ = lvis['annotations']
    assert (box['segmentation'], box['area']) == (polygon, 8.0)
    assert outlined['segmentation'] == [[0, 0, 5, 0, 5, 5, 0, 5]]
    assert outlined['area'] == 25
    assert {'id', 'name', 'synset', 'def', 'frequency', 'image_count'} <= set(
        lvis['categories'][0]
    )


def test_crowds_become_classes_that_are_not_exhaustive():
    coco = document_of([[0, 1]], 3)
    coco['annotations'][0]['iscrowd'] = 1
    lvis = to_lvis(coco, coco, 'val2017', negatives=5)
    assert lvis['images'][0]['not_exhaustive_category_ids'] == [10]
    assert lvis['images'][0]['neg_category_ids'] == [30]
    assert [a['category_id'] for a in lvis['annotations']] == [20]


def test_one_box_of_several_is_left_out_where_asked():
    coco = document_of([[0, 0, 0, 1], [1]], 2)
    lvis = to_lvis(coco, coco, 'x', not_exhaustive=1.0)
    assert [i['not_exhaustive_category_ids'] for i in lvis['images']] == [[10], []]
    assert [a['category_id'] for a in lvis['annotations']] == [10, 10, 20, 20]


def test_errors_name_what_is_wrong():
    coco = document_of([[0]], 1)
    lvis = to_lvis(coco, coco, 'x')
    with pytest.raises(ValueError, match='in the format of LVIS already'):
        to_lvis(lvis, coco, 'x')
    with pytest.raises(ValueError, match='negatives: .* >= 0, got -1'):
        to_lvis(coco, coco, 'x', negatives=-1)
    with pytest.raises(ValueError, match='not_exhaustive: .* <= 1, got 2'):
        to_lvis(coco, coco, 'x', not_exhaustive=2)
    with pytest.raises(ValueError, match=r"training file has no category \['c1'\]"):
        to_lvis(document_of([[0]], 2), coco, 'x')
