import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.datasets.subset import (
    count_classes,
    power_law_exponent,
    power_law_targets,
    take_classes,
    take_images,
    take_long_tail,
)


def document_of(classes_of_image, num_classes):
    """A COCO document; category ids are 10, 20, ... in falling order of the name."""
    annotations = [
        dict(
            image_id=i + 1,
            category_id=10 * (c + 1),
            bbox=[0, 0, 5, 5],
            area=25,
            iscrowd=0,
        )
        for i, classes in enumerate(classes_of_image)
        for c in classes
    ]
    return {
        'info': {'year': 2017},
        'images': [
            {'id': i + 1, 'width': 20, 'height': 20, 'file_name': f'{i}.jpg'}
            for i in range(len(classes_of_image))
        ],
        'annotations': [{'id': k, **a} for k, a in enumerate(annotations)],
        'categories': [
            {'id': 10 * (c + 1), 'name': f'c{c}'} for c in range(num_classes)
        ],
    }


@pytest.fixture
def balanced():
    """Ten classes, 40 images of each class alone, and some shared ones."""
    rng = np.random.default_rng(0)
    images = [[c] for c in range(10) for _ in range(40)]
    images += [rng.integers(0, 10, 3).tolist() for _ in range(60)]
    return document_of(images, 10)


@pytest.mark.parametrize('mark', ['iscrowd', 'ignore'])
def test_counts_leave_out_what_is_not_trained(mark):
    document = document_of([[0, 0, 1], [0]], 3)
    document['annotations'][-1][mark] = 1
    counts = count_classes(document)
    assert counts.names == ('c0', 'c1', 'c2')
    assert counts.images.tolist() == [1, 1, 0]
    assert counts.instances.tolist() == [2, 1, 0]


def test_images_are_drawn_with_all_that_is_theirs(balanced):
    subset = take_images(balanced, 50, seed=3)
    kept = [image['id'] for image in subset['images']]
    assert len(kept) == len(set(kept)) == 50
    assert kept == sorted(kept)
    assert subset['annotations'] == [
        a for a in balanced['annotations'] if a['image_id'] in kept
    ]
    assert subset['categories'] == balanced['categories']
    assert subset['info'] == balanced['info']
    assert take_images(balanced, 50, seed=3) == subset
    assert take_images(balanced, 50, seed=4) != subset


def test_classes_take_their_images_along():
    document = document_of([[0, 1], [2], [1], []], 3)
    for image in document['images']:
        image['neg_category_ids'] = [20, 30] if image['id'] == 4 else []
        image['not_exhaustive_category_ids'] = [10, 20] if image['id'] == 1 else []
    subset = take_classes(document, ['c1'])
    assert [i['id'] for i in subset['images']] == [1, 3, 4]
    assert [a['category_id'] for a in subset['annotations']] == [20, 20]
    assert subset['images'][0]['not_exhaustive_category_ids'] == [20]
    assert subset['images'][2]['neg_category_ids'] == [20]
    assert [c['name'] for c in subset['categories']] == ['c1']
    # The document is as it was.
    assert document['images'][3]['neg_category_ids'] == [20, 30]


@pytest.mark.parametrize('exponent', [0.8, 1.5])
def test_long_tail_follows_its_power_law(balanced, exponent):
    before = copy.deepcopy(balanced)
    subset = take_long_tail(balanced, exponent)
    counts = count_classes(subset).instances
    targets = power_law_targets(count_classes(balanced).instances, exponent)
    np.testing.assert_allclose(counts, targets, rtol=0.25, atol=1.5)
    assert power_law_exponent(counts) == pytest.approx(exponent, abs=0.15)
    assert balanced == before
    kept = {image['id'] for image in subset['images']}
    # Whole images: none keeps an object without its box.
    assert subset['annotations'] == [
        a for a in balanced['annotations'] if a['image_id'] in kept
    ]


def test_long_tail_takes_ids_as_they_are(balanced):
    """An array of them would hold strings alone, or floats."""
    images = [image['id'] for image in take_long_tail(balanced, 1.0)['images']]
    for change in (lambda i: f'{i}.jpg' if i % 2 else i, lambda i: 2**63 * (i % 2) + i):
        document = copy.deepcopy(balanced)
        for image in document['images']:
            image['id'] = change(image['id'])
        for annotation in document['annotations']:
            annotation['image_id'] = change(annotation['image_id'])
        subset = take_long_tail(document, 1.0)
        assert [image['id'] for image in subset['images']] == list(map(change, images))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=25),
    st.floats(0, 3),
    st.integers(1, 3),
)
def test_long_tail_never_loses_a_class(images, exponent, minimum):
    document = document_of(images, 5)
    if not document['annotations']:
        with pytest.raises(ValueError, match='long_tail: the file holds no boxes'):
            take_long_tail(document, exponent, minimum)
        return
    before = count_classes(document).instances
    after = count_classes(take_long_tail(document, exponent, minimum)).instances
    assert (after <= before).all()
    assert ((after > 0) == (before > 0)).all()


def test_targets_are_what_there_is_or_the_curve():
    targets = power_law_targets(np.array([5, 100, 0, 90]), 1.0, minimum=30)
    # Ranks 3, 1, 4, 2: 100/3, 100, 25, 50.
    np.testing.assert_allclose(targets, [5, 100, 0, 50])


def test_exponent_of_exact_power_laws():
    ranks = np.arange(1, 40)
    assert power_law_exponent(1e6 * ranks**-1.3) == pytest.approx(1.3)
    assert np.isnan(power_law_exponent(np.array([4, 0])))


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda d: take_images(d, 0), 'images: expected a value >= 1 and <= 460'),
        (lambda d: take_images(d, 461), 'images: .* <= 460, got 461'),
        (lambda d: take_classes(d, ['c1', 'x']), r"classes: \['x'\] are no categories"),
        (lambda d: take_classes(d, ['c1', 'c1']), 'classes: .* each once'),
        (lambda d: take_classes(d, []), 'classes: .* each once'),
        (lambda d: take_long_tail(d, -1.0), 'long_tail: .* >= 0, got -1.0'),
        (lambda d: take_long_tail(d, 1.0, 0), 'minimum: .* >= 1, got 0'),
    ],
)
def test_errors_name_what_is_wrong(balanced, call, message):
    with pytest.raises(ValueError, match=message):
        call(balanced)
