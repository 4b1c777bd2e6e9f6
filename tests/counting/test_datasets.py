from pathlib import Path

import numpy as np
import pytest
import scipy.io
from mmdet.registry import DATASETS
from PIL import Image

from daal_mmdet.counting import ShanghaiTechDataset, UCFCC50Dataset
from daal_mmdet.counting.crowd_scenes import (
    draw_crowd,
    write_shanghaitech_layout,
    write_ucf_cc_50_layout,
)

REAL = Path(__file__).parents[3] / 'shared' / 'data'


@pytest.fixture(scope='module')
def shanghaitech(tmp_path_factory):
    root = tmp_path_factory.mktemp('part')
    # Twelve, so that IMG_10 must not come before IMG_2.
    return root, write_shanghaitech_layout(root, range(12), [4, 5], size=(24, 32))


@pytest.fixture(scope='module')
def ucf(tmp_path_factory):
    root = tmp_path_factory.mktemp('ucf')
    return root, write_ucf_cc_50_layout(root, range(50), size=(24, 32))


def points_of(dataset):
    return [dataset.get_data_info(i)['gt_points'] for i in range(len(dataset))]


def test_shanghaitech_items(shanghaitech):
    root, written = shanghaitech
    train = DATASETS.build(dict(type='ShanghaiTechDataset', data_root=str(root)))
    assert [len(points) for points in points_of(train)] == list(range(12))
    item = train[11]
    np.testing.assert_allclose(item['gt_points'], written['train/IMG_12'])
    assert item['img_id'] == 'IMG_12'
    assert (item['height'], item['width']) == (24, 32)
    assert Path(item['img_path']).is_file()
    test = ShanghaiTechDataset(str(root), split='test', test_mode=True)
    assert [len(points) for points in points_of(test)] == [4, 5]
    some = ShanghaiTechDataset(str(root), indices=[3, 1])
    assert [len(points) for points in points_of(some)] == [3, 1]
    first = ShanghaiTechDataset(str(root), indices=2)
    assert [len(points) for points in points_of(first)] == [0, 1]


def test_the_other_spelling_of_the_folder(tmp_path):
    write_shanghaitech_layout(tmp_path, [3], [2], size=(24, 32))
    folder = tmp_path / 'train_data' / 'ground-truth'
    folder.rename(folder.with_name('ground_truth'))
    (points,) = points_of(ShanghaiTechDataset(str(tmp_path)))
    assert len(points) == 3


def test_ucf_folds_are_disjoint_and_complete(ucf):
    root, written = ucf
    seen = []
    for fold in range(5):
        train = UCFCC50Dataset(str(root), fold, 'train')
        test = UCFCC50Dataset(str(root), fold, 'test')
        names = [test[i]['img_id'] for i in range(len(test))]
        assert names == [str(n) for n in range(10 * fold + 1, 10 * fold + 11)]
        rest = [train[i]['img_id'] for i in range(len(train))]
        assert sorted(names + rest, key=int) == [str(n) for n in range(1, 51)]
        seen += names
    assert len(set(seen)) == 50
    every = UCFCC50Dataset(str(root), split='all')
    for points, name in zip(points_of(every), written, strict=True):
        np.testing.assert_allclose(points, written[name])


def test_points_far_outside_are_left_out_with_a_warning(tmp_path, monkeypatch):
    from daal_mmdet.counting import crowd_dataset

    write_shanghaitech_layout(tmp_path, [3], [1], size=(24, 32))
    path = tmp_path / 'train_data' / 'ground-truth' / 'GT_IMG_1.mat'
    content = scipy.io.loadmat(path)
    location = content['image_info'][0, 0]['location'][0, 0]
    location[0] = (-300.0, 5.0)
    location[1] = (0.4, 5.0)
    scipy.io.savemat(path, {'image_info': content['image_info']})
    said = []
    monkeypatch.setattr(crowd_dataset, 'print_log', lambda text, **_: said.append(text))
    (points,) = points_of(ShanghaiTechDataset(str(tmp_path)))
    assert points[0].tolist() == [-0.5, 4.0]
    assert len(points) == 2
    assert len(said) == 1
    assert (
        "left out points that lie outside their image: {'GT_IMG_1.mat': 1}" in said[0]
    )


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_root: there is no folder '.*no'"):
        ShanghaiTechDataset(str(tmp_path / 'no'))
    with pytest.raises(FileNotFoundError, match="there is no IMG_N.jpg in '.*images'"):
        ShanghaiTechDataset(str(tmp_path))
    with pytest.raises(FileNotFoundError, match='image: there is no file .*11.jpg'):
        UCFCC50Dataset(str(tmp_path), fold=0)
    write_shanghaitech_layout(tmp_path, [3], [1], size=(24, 32))
    (tmp_path / 'test_data' / 'ground-truth' / 'GT_IMG_1.mat').unlink()
    with pytest.raises(FileNotFoundError, match='points: there is no file .*GT_IMG_1'):
        ShanghaiTechDataset(str(tmp_path), split='test')
    (tmp_path / 'train_data' / 'images' / 'IMG_1.jpg').write_text('no image')
    with pytest.raises(ValueError, match='IMG_1.jpg: is no readable image'):
        ShanghaiTechDataset(str(tmp_path))


def test_an_image_that_would_be_turned_from_its_points_is_refused(tmp_path):
    write_shanghaitech_layout(tmp_path, [3], [1], size=(24, 32))
    path = tmp_path / 'train_data' / 'images' / 'IMG_1.jpg'
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new('RGB', (32, 24)).save(path, exif=exif)
        # By these OpenCV turns nothing.
        if orientation in (0, 1, 9):
            assert len(ShanghaiTechDataset(str(tmp_path))) == 1
            continue
        with pytest.raises(
            ValueError,
            match=rf'IMG_1\.jpg: has the EXIF orientation {orientation}, by which it',
        ):
            ShanghaiTechDataset(str(tmp_path))
    for broken in (b'Exif\0\0garbage garbage', b'Exif\0\0II*\0'):
        Image.new('RGB', (32, 24)).save(path, exif=broken)
        assert len(ShanghaiTechDataset(str(tmp_path))) == 1


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(fold=5), ValueError, 'fold: expected a value >= 0 and <= 4, got 5'),
        (dict(fold=1.0), TypeError, 'fold: expected an integer, got 1.0'),
        (dict(split='val'), ValueError, "split: expected one of .*, got 'val'"),
        (
            dict(indices=[0, 40]),
            ValueError,
            r'indices: expected numbers from 0 to 39, got \[40\]',
        ),
        (dict(indices=[]), ValueError, r'indices: expected .*, got \[\]'),
    ],
)
def test_bad_options_are_named(options, error, text, ucf):
    with pytest.raises(error, match=text):
        UCFCC50Dataset(str(ucf[0]), **options)


def test_drawn_heads_stand_where_the_points_say():
    rng = np.random.default_rng(0)
    empty, none = draw_crowd(np.random.default_rng(0), 0, 64, 96)
    assert none.shape == (0, 2)
    image, points = draw_crowd(rng, 30, 64, 96)
    assert image.shape == empty.shape == (64, 96, 3)
    assert image.dtype == np.uint8
    # The ground is noise around one hue; a head is one colour in its middle.
    x, y = points[-1]
    head = image[max(round(y), 0), round(np.clip(x, 0, 95))]
    assert head[2] > head[0], 'skin is redder than blue'
    again, same = draw_crowd(np.random.default_rng(0), 30, 64, 96)
    np.testing.assert_array_equal(points, same)
    np.testing.assert_array_equal(image, again)


@pytest.mark.skipif(not (REAL / 'UCF_CC_50').is_dir(), reason='UCF_CC_50 is not here')
def test_the_real_ucf_cc_50():
    every = UCFCC50Dataset(str(REAL / 'UCF_CC_50'), split='all')
    counts = [len(points) for points in points_of(every)]
    # Two of the 63,974 heads lie far outside their images.
    assert sum(counts) == 63972
    assert len(counts) == 50


@pytest.mark.skipif(
    not (REAL / 'shanghaitech_b_subset').is_dir(),
    reason='the subset of ShanghaiTech B is not here',
)
def test_the_real_shanghaitech_b():
    root = str(REAL / 'shanghaitech_b_subset')
    for split, count in (('train', 120), ('test', 60)):
        dataset = ShanghaiTechDataset(root, split)
        assert len(dataset) == count
        assert {(i['height'], i['width']) for i in dataset} == {(768, 1024)}
