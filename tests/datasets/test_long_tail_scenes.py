import dataclasses
import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from daal_mmdet.datasets import (
    CLASSES,
    LongTailScenes,
    long_tail_scenes,
    make_long_tail,
    zipf_counts,
)
from daal_mmdet.datasets.scene_drawing import SHAPES, draw_scene, shape_mask

SMALL = LongTailScenes(
    num_train=24, num_val=16, num_test=4, image_size=(96, 80), min_instances=1
)


def _files(root):
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob('*'))
        if p.is_file()
    }


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return make_long_tail(
        tmp_path_factory.mktemp('data') / 'scenes', SMALL, progress=False
    )


def test_same_arguments_give_the_same_bytes(small, tmp_path):
    again = make_long_tail(tmp_path / 'again', SMALL, progress=False)
    assert _files(again) == _files(small)


def test_another_seed_gives_other_images_and_boxes(small, tmp_path):
    other = _files(
        make_long_tail(
            tmp_path / 'other', dataclasses.replace(SMALL, seed=1), progress=False
        )
    )
    same = [name for name, content in _files(small).items() if other[name] == content]
    assert same == []


def test_images_do_not_depend_on_how_many_there_are(small, tmp_path):
    # Only the class labels are dealt out over the whole split.
    more = make_long_tail(
        tmp_path / 'more', dataclasses.replace(SMALL, num_test=0), progress=False
    )
    for name, content in _files(more).items():
        if name.startswith(('train/', 'val/', 'annotations/')):
            assert content == _files(small)[name]
    assert not (more / 'test').exists()


def test_second_call_writes_nothing(small):
    times = {p: p.stat().st_mtime_ns for p in small.rglob('*')}
    assert make_long_tail(small, SMALL, progress=False) == small
    assert {p: p.stat().st_mtime_ns for p in small.rglob('*')} == times


def test_an_interrupted_call_leaves_no_root_and_is_made_good(
    small, tmp_path, monkeypatch
):
    drawn = []

    def draw_three(rng, labels, **kwargs):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(labels)
        return draw_scene(rng, labels, **kwargs)

    root = tmp_path / 'scenes'
    with monkeypatch.context() as patch:
        patch.setattr(long_tail_scenes, 'draw_scene', draw_three)
        with pytest.raises(KeyboardInterrupt):
            make_long_tail(root, SMALL, progress=False)
    assert not root.exists()
    assert len(list((tmp_path / 'scenes.partial').rglob('*.jpg'))) == 3
    make_long_tail(root, SMALL, progress=False)
    assert _files(root) == _files(small)
    assert [p.name for p in tmp_path.iterdir()] == ['scenes']


def test_other_arguments_in_the_same_folder_are_an_error(small):
    changed = dataclasses.replace(SMALL, clutter=0.5, num_val=20)
    with pytest.raises(
        ValueError,
        match=r'other arguments \(clutter=1.0 there, '
        r'clutter=0.5 asked; num_val=16 there, '
        r'num_val=20 asked\)',
    ):
        make_long_tail(small, changed, progress=False)


def test_foreign_files_are_not_touched(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='holds no manifest.json'):
        make_long_tail(tmp_path, SMALL, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ['notes.txt']


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('num_train', 0, 'num_train must be at least 1, got 0'),
        ('instances_per_image', 0.5, 'instances_per_image must be at least 1, got 0.5'),
        ('exponent', -1.0, 'exponent must be at least 0, got -1.0'),
        (
            'image_size',
            (16, 64),
            r'image_size must be at least 32 x 32, got \(16, 64\)',
        ),
        (
            'object_size',
            (0.5, 0.2),
            r'object_size must be smallest <= largest <= 1, and the smallest 8 pixels '
            r'of \(192, 192\), got \(0\.5, 0\.2\)',
        ),
        ('object_size', (0.04, 0.2), 'the smallest 8 pixels of'),
        ('min_visible', 0.0, r'min_visible must be in \(0, 1\], got 0.0'),
        ('seed', -1, 'seed must be at least 0, got -1'),
    ],
)
def test_bad_arguments_name_the_key(key, value, message):
    with pytest.raises(ValueError, match=message):
        LongTailScenes(**{key: value})


def test_too_few_objects_for_the_minimum(tmp_path):
    args = dataclasses.replace(SMALL, num_train=2, min_instances=5)
    with pytest.raises(ValueError, match='cannot give each of 12 classes 5'):
        make_long_tail(tmp_path / 'scenes', args, progress=False)


def test_too_full_a_picture_says_what_to_change():
    with pytest.raises(ValueError, match='60 objects do not fit .* 64x64'):
        draw_scene(
            np.random.default_rng(0),
            np.zeros(60, int),
            size=(64, 64),
            object_size=(0.4, 0.5),
            min_visible=0.9,
            clutter=0.0,
        )


# ------------------------------------------------------------------- class counts
def test_default_training_counts_follow_zipf_and_validation_is_flat():
    args = LongTailScenes()
    for split, exponent in (('train', args.exponent), ('val', args.eval_exponent)):
        rng = np.random.default_rng(0)
        labels = np.concatenate(long_tail_scenes._deal_labels(rng, args, split))
        counts = np.bincount(labels, minlength=12)
        expected = np.arange(1, 13.0) ** -exponent
        expected *= len(labels) / expected.sum()
        np.testing.assert_allclose(counts, expected, atol=1)
    train = np.bincount(
        np.concatenate(
            long_tail_scenes._deal_labels(np.random.default_rng(0), args, 'train')
        )
    )
    assert train[0] > 40 * train[-1]
    assert counts.min() >= 30


@given(
    total=st.integers(1, 5000),
    num_classes=st.integers(1, 40),
    exponent=st.floats(0, 4),
    minimum=st.integers(1, 5),
)
def test_zipf_counts_add_up_and_never_rise(total, num_classes, exponent, minimum):
    if total < minimum * num_classes:
        with pytest.raises(ValueError, match=f'{total} objects cannot give each'):
            zipf_counts(total, num_classes, exponent, minimum)
        return
    counts = zipf_counts(total, num_classes, exponent, minimum)
    assert counts.sum() == total
    assert counts.min() >= minimum
    assert np.all(np.diff(counts) <= 0)
    # Above the minimum, ratios are Zipf's up to rounding.
    ranks = np.arange(1, num_classes + 1.0)
    head = counts > minimum + 1
    scaled = counts[head] * ranks[head] ** exponent
    slack = 1.0 * ranks[head] ** exponent
    if head.any():
        assert np.all(scaled - slack <= (scaled + slack).min() + 1e-6)


# ----------------------------------------------------------------- drawn geometry
def test_polygon_areas_match_the_masks():
    def shoelace(p):
        x, y = p.T
        return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2

    radius = 40.0
    for name, looks in SHAPES.items():
        area = shoelace(looks.contours[0])
        area -= sum(shoelace(hole) for hole in looks.contours[1:])
        mask = shape_mask(looks.contours, radius * np.eye(2))
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert mask.sum() == pytest.approx(area * radius**2, rel=0.04), name


def test_boxes_are_tight_on_the_pixels_that_an_object_changed():
    # The same scene without its last object: the random stream up to it is the same,
    # and so is everything that it does not cover.
    labels = np.array([0, 3, 6, 9])
    options = dict(size=(96, 80), object_size=(0.3, 0.5), min_visible=0.5, clutter=1.0)
    for seed in range(8):
        scenes = []
        for count in (3, 4):
            rng = np.random.default_rng(seed)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    'daal_mmdet.datasets.scene_drawing._light',
                    lambda rng, canvas: np.rint(canvas).astype(int),
                )
                scenes.append(draw_scene(rng, labels[:count], **options))
        changed = np.abs(scenes[0].image - scenes[1].image).max(axis=2) > 0
        rows, cols = np.nonzero(changed)
        x, y, w, h = scenes[1].boxes[3]
        found = np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])
        # Antialiased pixels covered by less than a half count as background.
        assert np.abs(found - [x, y, x + w, y + h]).max() <= 1
        assert scenes[1].areas[3] <= changed.sum()
        np.testing.assert_array_less(scenes[1].areas[:3], scenes[0].areas + 1)


def test_a_scene_without_objects_has_empty_arrays():
    scene = draw_scene(
        np.random.default_rng(0),
        np.zeros(0, int),
        size=(64, 48),
        object_size=(0.2, 0.4),
        min_visible=0.5,
        clutter=1.0,
    )
    assert scene.image.shape == (48, 64, 3)
    assert scene.boxes.shape == (0, 4)
    assert scene.labels.shape == scene.areas.shape == scene.visible.shape == (0,)


# ---------------------------------------------------------------------- on disk
@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_annotations_describe_what_is_on_disk(small, split):
    coco = COCO(small / 'annotations' / f'{split}.json')
    assert tuple(c['name'] for c in coco.loadCats(coco.getCatIds())) == CLASSES
    assert len(coco.imgs) == SMALL.num_images(split)
    for image in coco.imgs.values():
        pixels = cv2.imread(str(small / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3) == (80, 96, 3)
    for annotation in coco.anns.values():
        x, y, w, h = annotation['bbox']
        assert min(w, h) >= 1
        assert min(x, y) >= 0
        assert x + w <= 96
        assert y + h <= 80
        assert 0 < annotation['area'] <= w * h
        assert SMALL.min_visible <= annotation['visible'] <= 1
    found = {a['category_id'] for a in coco.anns.values()}
    if split != 'test':
        assert found == set(coco.getCatIds())


def test_mmdet_reads_it(small):
    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        ann_file='annotations/train.json',
        data_root=str(small),
        data_prefix=dict(img='train/'),
        pipeline=[],
        metainfo=dict(classes=CLASSES),
    )
    truth = json.loads((small / 'annotations' / 'train.json').read_text())
    counts = np.zeros(12, int)
    for index in range(len(dataset)):
        for instance in dataset.get_data_info(index)['instances']:
            counts[instance['bbox_label']] += 1
    expected = np.bincount([a['category_id'] - 1 for a in truth['annotations']])
    np.testing.assert_array_equal(counts, expected)
    assert len(dataset) == SMALL.num_train
