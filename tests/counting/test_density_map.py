import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.counting.density_cache import DensityCache
from daal_mmdet.counting.density_map import density_map, head_sigmas, pool_density
from tests import oracles

H, W = 17, 23
# Also on the very edge of the outermost pixels.
inside = st.tuples(
    st.floats(-0.5, W - 0.5, exclude_max=True),
    st.floats(-0.5, H - 0.5, exclude_max=True),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(inside, min_size=0, max_size=6),
    st.sampled_from([0.1, 0.3]),
    st.integers(1, 4),
    st.sampled_from([0.05, 1.0]),
)
def test_adaptive_maps_match_the_oracle(points, beta, k, smallest):
    points = np.array(points).reshape(-1, 2)
    options = dict(beta=beta, neighbors=k, sigma=3.0, min_sigma=smallest)
    sigmas = head_sigmas(points, 'adaptive', **options)
    want = oracles.head_sigmas(points, beta, k, alone=3.0, smallest=smallest)
    np.testing.assert_allclose(sigmas, want, rtol=1e-9)
    density = density_map(points, sigmas, H, W)
    assert density.dtype == np.float32
    np.testing.assert_allclose(density.sum(dtype=float), len(points), rtol=1e-5)
    want = oracles.density_map(points, sigmas, H, W)
    np.testing.assert_allclose(density, want, rtol=1e-4, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.lists(inside, min_size=1, max_size=4), st.floats(0.2, 40.0))
def test_fixed_maps_match_the_oracle_and_sum_to_the_count(points, sigma):
    points = np.array(points)
    sigmas = head_sigmas(points, 'fixed', sigma=sigma, min_sigma=0.1)
    assert sigmas.tolist() == [sigma] * len(points)
    density = density_map(points, sigmas, H, W)
    np.testing.assert_allclose(density.sum(dtype=float), len(points), rtol=1e-5)
    want = oracles.density_map(points, sigmas, H, W)
    np.testing.assert_allclose(density, want, rtol=1e-4, atol=1e-7)


def test_adaptive_sigma_by_hand():
    # From the first head: 3, 4 and 5 away, and one that does not count.
    points = np.array([[0.0, 0], [3, 0], [0, 4], [3, 4], [100, 100]])
    assert head_sigmas(points)[0] == pytest.approx(0.3 * (3 + 4 + 5) / 3)
    # Duplicates would have no width; heads with few others take what is there.
    assert head_sigmas(np.zeros((4, 2))).tolist() == [1.0] * 4
    assert head_sigmas(points[:2]).tolist() == pytest.approx([1.0, 1.0])
    assert head_sigmas(10 * points[:2]).tolist() == pytest.approx([9.0, 9.0])
    assert head_sigmas(points[:1]).tolist() == [15.0]
    assert head_sigmas(np.zeros((0, 2))).shape == (0,)


def test_no_heads_give_an_empty_map():
    density = density_map(np.zeros((0, 2)), np.zeros(0), 4, 5)
    assert density.shape == (4, 5)
    assert not density.any()


def test_a_point_outside_the_image_is_refused():
    with pytest.raises(ValueError, match=r'\[5\.0, 1\.0\] lies outside the image'):
        density_map(np.array([[1.0, 1.0], [5.0, 1.0]]), np.ones(2), 4, 5)
    with pytest.raises(ValueError, match=r'expected shape \(3, 2\), one for each'):
        density_map(np.zeros((2, 2)), np.ones(3), 4, 5)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(kernel='round'), ValueError, "kernel: expected one of .*, got 'round'"),
        (dict(sigma=0), ValueError, 'sigma: expected a value > 0, got 0'),
        (dict(beta=-1), ValueError, 'beta: expected a value > 0, got -1'),
        (dict(neighbors=2.5), TypeError, 'neighbors: expected an integer, got 2.5'),
        (dict(min_sigma=0), ValueError, 'min_sigma: expected a value > 0, got 0'),
    ],
)
def test_bad_options_are_named_at_once(options, error, text):
    with pytest.raises(error, match=text):
        head_sigmas(np.zeros((2, 2)), **options)
    with pytest.raises(error, match=text):
        DensityCache(None, options)


@pytest.mark.parametrize('shape', [(8, 16), (9, 17), (1, 1), (15, 8)])
def test_pooling_keeps_every_sum(shape):
    density = np.random.default_rng(0).random(shape).astype(np.float32)
    pooled = pool_density(density, 8)
    assert pooled.shape == (-(-shape[0] // 8), -(-shape[1] // 8))
    assert pooled.dtype == np.float32
    for i, row in enumerate(pooled):
        for j, cell in enumerate(row):
            block = density[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
            assert cell == pytest.approx(block.sum(), rel=1e-5)


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(0, 16, (5, 2))


def test_cache_computes_each_map_once(points, tmp_path, monkeypatch):
    cache = DensityCache(tmp_path / 'maps', dict(kernel='fixed', sigma=2.0))
    computed = []
    compute = cache._compute
    monkeypatch.setattr(cache, '_compute', lambda *a: computed.append(a) or compute(*a))
    first = cache(points, H, W)
    again = cache(points, H, W)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, density_map(points, np.full(5, 2.0), H, W))
    assert len(computed) == 1
    # Nothing but finished files lies there.
    assert [path.suffix for path in (tmp_path / 'maps').iterdir()] == ['.npy']

    # Other points, another size and other options are other maps.
    cache(points + 0.1, H, W)
    cache(points, H + 1, W)
    other = DensityCache(tmp_path / 'maps', dict(kernel='fixed', sigma=3.0))
    assert not np.allclose(other(points, H, W), first)
    assert len(computed) == 3
    assert len(list((tmp_path / 'maps').iterdir())) == 4


@pytest.mark.parametrize('damage', [b'', b'\x93NUMPY no header', None])
def test_a_damaged_file_is_computed_again(damage, points, tmp_path):
    cache = DensityCache(tmp_path, dict(kernel='adaptive'))
    want = np.array(cache(points, H, W))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] if damage is None else damage)
    np.testing.assert_array_equal(cache(points, H, W), want)
    assert path.read_bytes() == whole


def test_without_a_folder_nothing_is_written(points, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DensityCache(None, dict(kernel='adaptive'))(points, H, W)
    assert not list(tmp_path.iterdir())
