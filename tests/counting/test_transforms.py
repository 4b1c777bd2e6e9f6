import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS

from daal_mmdet.counting import (
    LoadDensityMap,
    PackCrowdInputs,
    RandomCrowdCrop,
    RandomCrowdFlip,
    RandomCrowdScale,
)
from daal_mmdet.counting.density_map import pool_density
from daal_mmdet.counting.points import inside_image


def scene(points, height, width):
    """An image that is bright at the pixel of each point, and a map that marks it."""
    points = np.array(points, dtype=float).reshape(-1, 2)
    image = np.zeros((height, width, 3), np.uint8)
    density = np.zeros((height, width), np.float32)
    for x, y in points:
        image[round(y), round(x)] = 255
        density[round(y), round(x)] += 1
    return dict(
        img=image,
        img_path='a.jpg',
        img_id='a',
        ori_shape=(height, width),
        img_shape=(height, width),
        height=height,
        width=width,
        gt_points=points,
        gt_density=density,
    )


whole = st.tuples(st.integers(0, 30), st.integers(0, 20))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(whole, max_size=8, unique=True),
    st.sampled_from([7, (5, 9), (40, 8), 0.5, 0.9, 64]),
    st.integers(0, 1000),
)
def test_crop_keeps_points_on_their_pixels(points, crop_size, seed):
    results = scene(points, 21, 31)
    np.random.seed(seed)
    RandomCrowdCrop(crop_size)(results)
    check_points_match(results)
    rows, columns = results['img'].shape[:2]
    if isinstance(crop_size, float):
        assert (rows, columns) == (round(crop_size * 21), round(crop_size * 31))
    else:
        high, wide = crop_size if isinstance(crop_size, tuple) else (crop_size,) * 2
        assert (rows, columns) == (min(high, 21), min(wide, 31))


def check_points_match(results):
    """Points, bright pixels and marks of the map are the same."""
    rows, columns = results['img'].shape[:2]
    assert results['img_shape'] == (rows, columns) == results['gt_density'].shape
    found = sorted((round(x), round(y)) for x, y in results['gt_points'])
    for marked in (results['img'][..., 0] > 0, results['gt_density'] > 0):
        assert found == sorted((x, y) for y, x in np.argwhere(marked))


def test_crops_reach_every_place():
    np.random.seed(0)
    corners = set()
    for _ in range(200):
        results = scene([], 6, 8)
        results['gt_density'][:] = np.arange(48).reshape(6, 8)
        corners.add(RandomCrowdCrop((4, 5))(results)['gt_density'][0, 0])
    assert corners == {8 * y + x for y in range(3) for x in range(4)}


@settings(max_examples=20, deadline=None)
@given(st.lists(whole, max_size=8, unique=True))
def test_flip_keeps_points_on_their_pixels(points):
    results = RandomCrowdFlip(prob=1.0)(scene(points, 21, 31))
    check_points_match(results)
    assert sorted(results['gt_points'][:, 0]) == sorted(30 - x for x, _ in points)
    np.testing.assert_array_equal(
        RandomCrowdFlip(prob=1.0)(results)['gt_points'].reshape(-1, 2),
        np.array(points).reshape(-1, 2),
    )


def test_flip_keeps_a_point_on_the_left_border_inside():
    results = scene([], 21, 31)
    results['gt_points'] = np.array([[-0.5, 5.0], [30.4, -0.5]])
    RandomCrowdFlip(prob=1.0)(results)
    assert inside_image(results['gt_points'], 21, 31).all()
    np.testing.assert_allclose(results['gt_points'], [[30.5, 5], [-0.4, -0.5]])
    RandomCrowdCrop(64)(results)
    assert len(results['gt_points']) == 2


def test_flip_happens_as_often_as_asked():
    np.random.seed(0)
    flipped = [
        RandomCrowdFlip(0.3)(scene([(0, 0)], 4, 6))['gt_points'][0, 0] == 5
        for _ in range(300)
    ]
    assert 0.2 < np.mean(flipped) < 0.4
    assert RandomCrowdFlip(0.0)(scene([(0, 0)], 4, 6))['gt_points'][0, 0] == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-0.5, 30.5, exclude_max=True),
            st.floats(-0.5, 20.5, exclude_max=True),
        ),
        max_size=6,
    ),
    st.floats(0.1, 3.0),
)
def test_scale_keeps_points_inside_at_their_share_and_the_sum(points, factor):
    results = scene([], 21, 31)
    results['gt_points'] = points = np.array(points).reshape(-1, 2)
    results['gt_density'] = np.random.default_rng(0).random((21, 31), np.float32)
    before = results['gt_density'].sum(dtype=float)
    RandomCrowdScale((factor, factor))(results)
    rows, columns = results['img_shape']
    assert results['img'].shape[:2] == results['gt_density'].shape == (rows, columns)
    assert (rows, columns) == (max(1, round(21 * factor)), max(1, round(31 * factor)))
    assert results['gt_density'].sum(dtype=float) == pytest.approx(before, rel=1e-4)
    assert inside_image(results['gt_points'], rows, columns).all()
    # Measured from the image's corner, a point stays at its share of each side.
    was = (points + 0.5) / (31, 21)
    now = (results['gt_points'] + 0.5) / (columns, rows)
    np.testing.assert_allclose(now, was, atol=1e-9)


def test_scale_moves_the_map_with_the_image():
    results = scene([(20, 10)], 40, 60)
    results['img'][8:13, 18:23] = 255
    RandomCrowdScale((2.0, 2.0))(results)
    y, x = np.unravel_index(results['gt_density'].argmax(), (80, 120))
    point = results['gt_points'][0]
    np.testing.assert_allclose(point, [40.5, 20.5])
    np.testing.assert_allclose([x, y], point, atol=0.6)
    bright = np.argwhere(results['img'][..., 0] > 128).mean(axis=0)
    np.testing.assert_allclose(bright[::-1], point, atol=0.6)
    empty = RandomCrowdScale((0.5, 0.5))(scene([], 8, 8))
    assert not empty['gt_density'].any()


def test_the_density_map_is_of_the_points(tmp_path):
    results = scene([(4, 5), (20, 10)], 21, 31)
    del results['gt_density']
    load = LoadDensityMap(kernel='fixed', sigma=2.0, cache_dir=tmp_path / 'maps')
    density = load(results)['gt_density']
    assert density.sum() == pytest.approx(2, rel=1e-5)
    assert np.argwhere(density > 0.9 * density.max()).tolist() == [[5, 4], [10, 20]]
    assert len(list((tmp_path / 'maps').iterdir())) == 1
    results['height'] = 31
    with pytest.raises(ValueError, match='the file says 31 x 31 pixels, it was loaded'):
        load(results)


def test_packed_inputs():
    results = scene([(4, 5), (20, 10)], 21, 31)
    packed = PackCrowdInputs(stride=8)(results)
    assert packed['inputs'].shape == (3, 21, 31)
    assert packed['inputs'].dtype == torch.uint8
    assert packed['inputs'].is_contiguous()
    sample = packed['data_samples']
    assert sample.gt_count == 2
    assert sample.gt_points.tolist() == [[4, 5], [20, 10]]
    assert sample.img_id == 'a'
    np.testing.assert_array_equal(
        sample.gt_density, pool_density(results['gt_density'], 8)
    )
    del results['gt_density']
    assert 'gt_density' not in PackCrowdInputs()(results)['data_samples']


def test_a_pipeline_of_all_of_them():
    names = ['RandomCrowdScale', 'RandomCrowdFlip', 'PackCrowdInputs']
    steps = [TRANSFORMS.build(dict(type=name)) for name in names]
    steps.insert(1, TRANSFORMS.build(dict(type='RandomCrowdCrop', crop_size=16)))
    np.random.seed(0)
    packed = Compose(steps)(scene([(4, 5), (20, 10)], 64, 64))
    assert packed['inputs'].shape == (3, 16, 16)
    assert packed['data_samples'].gt_density.shape == (2, 2)
    assert 'crop_size=(16, 16)' in repr(steps[1])


@pytest.mark.parametrize(
    ('make', 'error', 'text'),
    [
        (lambda: RandomCrowdCrop(0), ValueError, 'crop_size: .* >= 1, got 0'),
        (lambda: RandomCrowdCrop(1.5), ValueError, 'crop_size: .* <= 1, got 1.5'),
        (lambda: RandomCrowdCrop((1, 2, 3)), ValueError, r'\(height, width\), got'),
        (lambda: RandomCrowdCrop('big'), TypeError, "crop_size: .* number, got 'big'"),
        (lambda: RandomCrowdFlip(2), ValueError, 'prob: .* <= 1, got 2'),
        (lambda: RandomCrowdScale((2, 1)), ValueError, r'scale_range\[1\]: .*>= 2'),
        (lambda: RandomCrowdScale((1,)), ValueError, r'\(smallest, largest\), got'),
        (lambda: PackCrowdInputs(stride=0), ValueError, 'stride: .* >= 1, got 0'),
        (lambda: LoadDensityMap('flat'), ValueError, "kernel: .*, got 'flat'"),
    ],
)
def test_bad_options_are_named(make, error, text):
    with pytest.raises(error, match=text):
        make()
