import io
import json

import numpy as np
import pytest
from mmdet.registry import DATASETS, TRANSFORMS
from PIL import Image

from daal_mmdet.datasets import load_image_or_skip

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    return buffer.getvalue()


def build(**options):
    return TRANSFORMS.build({'type': 'LoadImageOrSkip', **options})


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'bmp'])
def test_sound_images_load_as_with_mmcv(tmp_path, kind):
    path = tmp_path / f'a.{kind}'
    path.write_bytes(encoded(kind))
    got = build().transform({'img_path': str(path)})
    want = TRANSFORMS.build({'type': 'LoadImageFromFile'}).transform(
        {'img_path': str(path)}
    )
    assert got.keys() == want.keys()
    np.testing.assert_array_equal(got['img'], want['img'])


def test_bytes_behind_the_end_are_no_defect(tmp_path):
    path = tmp_path / 'a.jpg'
    path.write_bytes(encoded('jpeg') + b'what a camera adds')
    assert build().transform({'img_path': str(path)})['img'].shape == (40, 50, 3)


@pytest.mark.parametrize(
    'content',
    [None, b'', b'<html>', encoded('jpeg')[:-100], encoded('png')[:-100],
     encoded('jpeg')[:30]],
    ids=['missing', 'empty', 'other', 'truncated jpeg', 'truncated png', 'head only'],
)  # fmt: skip
def test_broken_images_are_skipped_told_and_counted(tmp_path, content, monkeypatch):
    lines = []
    monkeypatch.setattr(
        load_image_or_skip, 'print_log', lambda line, **_: lines.append(line)
    )
    load = build()
    for count, name in enumerate(('a.img', 'b.img'), start=1):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        for _ in range(2):
            assert load.transform({'img_path': str(path)}) is None
        line = lines.pop()
        assert not lines
        assert line.startswith(f"left out: {path} can't be read (")
        assert line.endswith(f'; {count} such images so far')


def test_too_many_are_an_error_that_names_the_next(tmp_path):
    load = build(max_skipped=2)
    for name in 'ab':
        assert load.transform({'img_path': str(tmp_path / name)}) is None
    with pytest.raises(OSError, match=r"c can't be read .*max_skipped"):
        load.transform({'img_path': str(tmp_path / 'c')})
    with pytest.raises(ValueError, match='max_skipped: .* >= 0, got -1'):
        build(max_skipped=-1)
    with pytest.raises(TypeError, match="max_skipped: expected an integer, got '9'"):
        build(max_skipped='9')


def test_the_data_set_takes_another_image(tmp_path):
    (tmp_path / 'good.jpg').write_bytes(encoded('jpeg'))
    (tmp_path / 'bad.jpg').write_bytes(encoded('jpeg')[:-100])
    annotations = {
        'images': [
            {'id': i, 'file_name': name, 'width': 50, 'height': 40}
            for i, name in enumerate(('bad.jpg', 'good.jpg'))
        ],
        'annotations': [],
        'categories': [{'id': 1, 'name': 'cat'}],
    }
    (tmp_path / 'a.json').write_text(json.dumps(annotations))
    dataset = DATASETS.build(
        {
            'type': 'CocoDataset',
            'ann_file': str(tmp_path / 'a.json'),
            'data_prefix': {'img': str(tmp_path)},
            'metainfo': {'classes': ('cat',)},
            'pipeline': [{'type': 'LoadImageOrSkip'}],
        }
    )
    for _ in range(4):
        assert dataset[0]['img_path'].endswith('good.jpg')
