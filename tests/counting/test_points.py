from pathlib import Path

import numpy as np
import pytest
import scipy.io

from daal_mmdet.counting.crowd_scenes import (
    write_shanghaitech_layout,
    write_ucf_cc_50_layout,
)
from daal_mmdet.counting.points import (
    inside_image,
    move_inside,
    read_shanghaitech_points,
    read_ucf_cc_50_points,
)

REAL = Path(__file__).parents[3] / 'shared' / 'data'
READERS = [read_shanghaitech_points, read_ucf_cc_50_points]


def test_shanghaitech_layout_is_read(tmp_path):
    written = write_shanghaitech_layout(tmp_path, train=[7, 0], test=[1])
    folder = tmp_path / 'train_data' / 'ground-truth'
    points = read_shanghaitech_points(folder / 'GT_IMG_1.mat')
    np.testing.assert_allclose(points, written['train/IMG_1'])
    # MATLAB counts pixels from 1.
    raw = scipy.io.loadmat(folder / 'GT_IMG_1.mat')['image_info'][0, 0][0, 0][0]
    np.testing.assert_allclose(points + 1, raw)
    assert read_shanghaitech_points(folder / 'GT_IMG_2.mat').shape == (0, 2)


def test_ucf_layout_is_read(tmp_path):
    written = write_ucf_cc_50_layout(tmp_path, [5, 0])
    np.testing.assert_allclose(
        read_ucf_cc_50_points(tmp_path / '1_ann.mat'), written['1']
    )
    assert read_ucf_cc_50_points(tmp_path / '2_ann.mat').shape == (0, 2)


@pytest.mark.parametrize('read', READERS)
def test_missing_and_damaged_files(read, tmp_path):
    path = tmp_path / 'a.mat'
    with pytest.raises(FileNotFoundError, match='points: there is no file .*a.mat'):
        read(path)
    for damaged in (b'', b'no matlab file at all', b'MATLAB 5.0 MAT-file'.ljust(140)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r'a\.mat: is no readable \.mat file'):
            read(path)


@pytest.mark.parametrize('keep', [150, 190, 250])
def test_a_file_that_was_cut_short_is_refused(keep, tmp_path):
    write_ucf_cc_50_layout(tmp_path, [40])
    path = tmp_path / '1_ann.mat'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match='1_ann.mat: '):
        read_ucf_cc_50_points(path)


def test_other_layouts_are_named(tmp_path):
    path = tmp_path / 'a.mat'
    scipy.io.savemat(path, {'dots': np.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"the variable 'annPoints', found \['dots'\]"):
        read_ucf_cc_50_points(path)
    scipy.io.savemat(path, {'annPoints': np.zeros((3, 4))})
    with pytest.raises(ValueError, match=r'points of shape \(n, 2\), got \(3, 4\)'):
        read_ucf_cc_50_points(path)
    scipy.io.savemat(path, {'annPoints': np.array([[1.0, np.nan]])})
    with pytest.raises(ValueError, match='a.mat: a point is not finite'):
        read_ucf_cc_50_points(path)
    scipy.io.savemat(path, {'image_info': np.zeros((3, 2))})
    with pytest.raises(ValueError, match="'image_info' is not nested as published"):
        read_shanghaitech_points(path)


def test_inside_image_ends_half_a_pixel_beyond_the_outer_centres():
    points = np.array([[-0.5, 0], [-0.51, 0], [3.49, 1.49], [3.5, 0], [0, 1.5]])
    assert inside_image(points, height=2, width=4).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_points_just_outside_are_moved_and_others_dropped():
    points = np.array([[0.0, 0], [-1.4, 1], [3.8, 2.4], [4.6, 0], [0, -9], [1, 1.9]])
    kept = move_inside(points, height=2, width=4)
    np.testing.assert_allclose(
        kept, [[0, 0], [-0.5, 1], [3.5, 1.5], [1, 1.5]], rtol=1e-12
    )
    assert inside_image(kept, 2, 4).all()
    assert move_inside(points, 2, 4, slack=0).tolist() == [[0, 0]]
    assert move_inside(np.zeros((0, 2)), 2, 4).shape == (0, 2)


@pytest.mark.skipif(not (REAL / 'UCF_CC_50').is_dir(), reason='UCF_CC_50 is not here')
def test_the_real_ucf_cc_50():
    points = [
        read_ucf_cc_50_points(REAL / 'UCF_CC_50' / f'{n}_ann.mat') for n in range(1, 51)
    ]
    assert sum(map(len, points)) == 63974
    # The paper says 94, the files 96.
    assert min(map(len, points)) == 96


@pytest.mark.skipif(
    not (REAL / 'shanghaitech_b_subset').is_dir(),
    reason='the subset of ShanghaiTech B is not here',
)
def test_the_real_shanghaitech_b():
    folder = REAL / 'shanghaitech_b_subset' / 'train_data' / 'ground-truth'
    for path in sorted(folder.glob('*.mat'))[:20]:
        points = read_shanghaitech_points(path)
        number = scipy.io.loadmat(path)['image_info'][0, 0]['number'][0, 0].item()
        assert len(points) == number
        # Some were clicked just outside.
        kept = move_inside(points, 768, 1024)
        assert len(kept) == number
        assert np.abs(kept - points).max() < 1
