import json
import re
from pathlib import Path

import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from PIL import ExifTags, Image

from daal_mmdet.datasets.voc import convert_voc

BCCD = Path(__file__).parents[2] / '..' / 'shared' / 'data' / 'bccd'


def write_voc(root, images, lists=None, size=(100, 80)):
    """``images``: name -> list of (class, xmin, ymin, xmax, ymax[, difficult])."""
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, objects in images.items():
        for folder in ('Annotations', 'JPEGImages'):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', size).save(root / 'JPEGImages' / f'{name}.jpg')
        body = ''
        for label, *corners in objects:
            difficult = corners[4] if len(corners) > 4 else 0
            tags = zip(('xmin', 'ymin', 'xmax', 'ymax'), corners, strict=False)
            box = ''.join(f'<{k}>{v}</{k}>' for k, v in tags if v is not None)
            body += (
                f'<object><name>{label}</name><difficult>{difficult}</difficult>'
                f'<bndbox>{box}</bndbox></object>'
            )
        (root / 'Annotations' / f'{name}.xml').write_text(
            f'<annotation><size><width>{size[0]}</width><height>{size[1]}</height>'
            f'</size>{body}</annotation>'
        )
    for split, names in (lists or {'train': list(images)}).items():
        text = ''.join(f'{name}\n' for name in names)
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text(text)
    return root


def read(out, split='train'):
    return json.loads((out / 'annotations' / f'{split}.json').read_text())


def test_boxes_classes_and_splits(tmp_path):
    root = write_voc(
        tmp_path / 'voc',
        {
            'a': [('cat', 1, 1, 50, 40), ('dog', 11, 21, 31, 61)],
            'b': [('dog', 5, 5, 9, 9, 1), ('dog', 5, 5, 9, 9)],
            'c': [('owl', 5, 5, 9, 9)],
            'd': [],
        },
        {'train': ['b', 'a', 'd'], 'val': ['c']},
    )
    out = tmp_path / 'coco'
    conversion = convert_voc(root, out, ['train', 'val'], progress=False)
    assert conversion.classes == ('dog', 'cat', 'owl')
    assert conversion.images == {'train': 3, 'val': 1}
    assert conversion.boxes['train'] == {'dog': 3, 'cat': 1}
    assert conversion.defects == []
    train, val = read(out), read(out, 'val')
    assert train['categories'] == val['categories']
    assert [c['name'] for c in train['categories']] == ['dog', 'cat', 'owl']
    assert [i['file_name'] for i in train['images']] == ['b.jpg', 'a.jpg', 'd.jpg']
    by_image = {(a['image_id'], a['category_id']): a for a in train['annotations']}
    assert by_image[2, 2]['bbox'] == [0, 0, 49, 39]
    assert by_image[2, 2]['area'] == 49 * 39
    assert by_image[2, 1]['bbox'] == [10, 20, 20, 40]
    assert [a['iscrowd'] for a in train['annotations']] == [1, 0, 0, 0]


def test_mmdet_reads_what_was_written(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': [('cat', 11, 21, 31, 61)], 'b': []})
    out = tmp_path / 'coco'
    convert_voc(root, out, ['train'], progress=False)
    dataset = CocoDataset(
        data_root=str(out),
        ann_file='annotations/train.json',
        data_prefix={'img': 'JPEGImages/'},
        metainfo={'classes': ('cat',)},
        pipeline=[],
    )
    info = dataset.get_data_info(0)
    assert Path(info['img_path']).is_file()
    assert info['instances'][0]['bbox'] == [10, 20, 30, 60]
    assert len(dataset) == 2


def test_an_image_keeps_its_folder(tmp_path):
    root = write_voc(
        tmp_path / 'voc',
        {'a': [('cat', 1, 1, 9, 9)], 'sub/a': [('cat', 5, 5, 300, 9)]},
    )
    conversion = convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    images = read(tmp_path / 'coco')['images']
    assert [image['file_name'] for image in images] == ['a.jpg', 'sub/a.jpg']
    for image in images:
        assert (tmp_path / 'coco' / 'JPEGImages' / image['file_name']).is_file()
    assert [defect.file for defect in conversion.defects] == ['sub/a.xml']


@pytest.mark.parametrize(
    ('lines', 'expected'),
    [
        (['my img', 'a'], ['my img', 'a']),
        # A list of one class says where the class is.
        (['my img  1', 'a -1', 'b  0'], ['my img', 'a', 'b']),
        (['a  1'], ['a']),
        # These are names that end so.
        (['img 1', 'img 0'], ['img 1', 'img 0']),
    ],
)
def test_names_may_hold_spaces(tmp_path, lines, expected):
    images = dict.fromkeys(('a', 'b', 'my img', 'img 0', 'img 1'), ())
    root = write_voc(tmp_path / 'voc', images, {'train': lines})
    convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    names = [image['file_name'] for image in read(tmp_path / 'coco')['images']]
    assert names == [f'{name}.jpg' for name in expected]


def test_a_second_column_of_something_else_is_named(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': []}, {'train': ['a 7']})
    with pytest.raises(FileNotFoundError, match=r'2 files .*\n.*/a 7\.xml\n'):
        convert_voc(root, tmp_path / 'coco', ['train'], progress=False)


@pytest.mark.parametrize(
    ('corners', 'dropped', 'reason'),
    [
        ((9, 9, 9, 20), True, r'cat box (9, 9, 9, 20) has no area'),
        ((9, 20, 30, 10), True, r'cat box (9, 20, 30, 10) has no area'),
        ((9, 'x', 30, 10), True, r'cat box (9, x, 30, 10) lacks a number'),
        ((9, 1, 'nan', 10), True, r'cat box (9, 1, nan, 10) lacks a number'),
        ((9, 1, 30, None), True, r'cat box (9, 1, 30, None) lacks a number'),
        ((200, 1, 300, 9), True, 'lies outside its 100 x 80 image'),
        ((90, 1, 300, 9), False, 'reaches beyond its 100 x 80 image'),
    ],
)
def test_defective_boxes_are_reported_with_file_and_reason(
    tmp_path, corners, dropped, reason
):
    root = write_voc(tmp_path / 'voc', {'a': [('cat', *corners), ('cat', 1, 1, 9, 9)]})
    out = tmp_path / 'coco'
    conversion = convert_voc(root, out, ['train'], progress=False)
    (defect,) = conversion.defects
    assert (defect.split, defect.file, defect.dropped) == ('train', 'a.xml', dropped)
    assert reason in defect.reason
    assert conversion.num_dropped == dropped
    assert conversion.boxes['train'] == {'cat': 1 if dropped else 2}
    report = json.loads((out / 'annotations' / 'report.json').read_text())
    assert report['defects'][0]['reason'] == defect.reason


def test_clipped_box_ends_at_the_image(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': [('cat', -5, 11, 300, 900)]})
    convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    assert read(tmp_path / 'coco')['annotations'][0]['bbox'] == [0, 10, 100, 70]


def test_corners_may_be_counted_from_zero(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': [('cat', 0, 0, 100, 80)]})
    conversion = convert_voc(
        root, tmp_path / 'coco', ['train'], one_based=False, progress=False
    )
    assert conversion.defects == []
    assert read(tmp_path / 'coco')['annotations'][0]['bbox'] == [0, 0, 100, 80]


def test_listed_classes_fix_the_ids_and_drop_the_rest(tmp_path):
    root = write_voc(
        tmp_path / 'voc', {'a': [('cat', 1, 1, 9, 9), ('owl', 1, 1, 9, 9)]}
    )
    conversion = convert_voc(
        root, tmp_path / 'coco', ['train'], classes=['dog', 'cat'], progress=False
    )
    assert read(tmp_path / 'coco')['annotations'][0]['category_id'] == 2
    assert conversion.defects[0].reason == "class 'owl' is not one of ['dog', 'cat']"
    assert conversion.num_dropped == 1


def test_stated_size_that_the_image_contradicts(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': [('cat', 1, 1, 90, 70)]})
    Image.new('RGB', (50, 40)).save(root / 'JPEGImages' / 'a.jpg')
    conversion = convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    size, box = conversion.defects
    assert size.reason == 'states a size of 100 x 80, the image has 50 x 40'
    assert 'reaches beyond its 50 x 40 image' in box.reason
    assert read(tmp_path / 'coco')['images'][0]['width'] == 50


def test_a_file_may_state_no_size(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': [('cat', 1, 1, 90, 70)]})
    xml = root / 'Annotations' / 'a.xml'
    xml.write_text(re.sub('<size>.*</size>', '', xml.read_text()))
    conversion = convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    assert conversion.defects == []
    assert read(tmp_path / 'coco')['images'][0]['height'] == 80


def orientation(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return {'exif': exif}


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize(
    ('saved', 'turned'),
    [
        *[(orientation(value), 5 <= value <= 8) for value in range(10)],
        ({'exif': b'Exif\x00\x00no EXIF'}, False),
        ({'exif': b'Exif\x00\x00MM\x00*\x00'}, False),
    ],
    ids=[*map(str, range(10)), 'none', 'cut off'],
)
def test_a_turned_photograph_has_the_size_that_mmdet_loads(
    tmp_path, saved, turned, suffix
):
    root = write_voc(tmp_path / 'voc', {'a': [('cat', 1, 1, 70, 70)]})
    (root / 'JPEGImages' / 'a.jpg').unlink()
    path = root / 'JPEGImages' / f'a{suffix}'
    Image.new('RGB', (100, 80)).save(path, **saved)
    convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    (image,) = read(tmp_path / 'coco')['images']
    loaded = LoadImageFromFile()({'img_path': str(path)})['img'].shape[:2]
    assert (image['height'], image['width']) == loaded
    assert loaded == ((100, 80) if turned else (80, 100))


def test_an_orientation_in_xmp_turns_nothing(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': [('cat', 1, 1, 90, 70)]})
    path = root / 'JPEGImages' / 'a.jpg'
    turned = b'<rdf:Description tiff:Orientation="6"/>'
    Image.new('RGB', (100, 80)).save(path, xmp=turned)
    with Image.open(path) as image:
        assert image.getexif()[ExifTags.Base.Orientation] == 6
    conversion = convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    assert conversion.defects == []
    loaded = LoadImageFromFile()({'img_path': str(path)})
    assert loaded['img'].shape[:2] == (80, 100)


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': []})
    (root / 'ImageSets' / 'Main' / 'train.txt').write_text('a\n', 'utf-8-sig')
    convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    assert [image['file_name'] for image in read(tmp_path / 'coco')['images']] == [
        'a.jpg'
    ]


def test_missing_files_are_all_named_before_anything_is_written(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': [], 'b': [], 'c': []})
    (root / 'JPEGImages' / 'a.jpg').unlink()
    (root / 'Annotations' / 'c.xml').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'(?s)2 files .*a\.jpg \(or \.jpeg, \.png, \.bmp\).*c\.xml',
    ):
        convert_voc(root, tmp_path / 'coco', ['train'], progress=False)
    assert not (tmp_path / 'coco').exists()


def test_other_errors(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': [], 'b': []})
    with pytest.raises(FileNotFoundError, match=r"val\.txt; there are \['train'\]"):
        convert_voc(root, tmp_path / 'coco', ['val'], progress=False)
    for second in ('a', './a'):
        lines = f'a\nb\n{second}\n'
        (root / 'ImageSets' / 'Main' / 'twice.txt').write_text(lines)
        with pytest.raises(ValueError, match=r"lists \['a'\] more than once"):
            convert_voc(root, tmp_path / 'coco', ['twice'], progress=False)
    for content, message in (
        ('bäcker\n'.encode('latin-1'), r'bad\.txt is not UTF-8: .* 0xe4 in position 1'),
        (b' \n\n', r'bad\.txt lists no image'),
    ):
        (root / 'ImageSets' / 'Main' / 'bad.txt').write_bytes(content)
        with pytest.raises(ValueError, match=message):
            convert_voc(root, tmp_path / 'coco', ['bad'], progress=False)
    with pytest.raises(
        ValueError, match=r"classes: \['cat'\] are named more than once"
    ):
        convert_voc(
            root, tmp_path / 'coco', ['train'], ['cat', 'dog', 'cat'], progress=False
        )
    for text in ('<annotation>', '<?xml version="1.0" encoding="nonsense"?><a/>'):
        (root / 'Annotations' / 'b.xml').write_text(text)
        with pytest.raises(ValueError, match=r'b\.xml is no XML'):
            convert_voc(root, tmp_path / 'coco', ['train'], progress=False)


def test_an_image_of_too_many_pixels_is_named(tmp_path, monkeypatch):
    root = write_voc(tmp_path / 'voc', {'a': []})
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 3999)
    with pytest.raises(ValueError, match=r'a\.jpg: Image size \(8000 pixels\) exceeds'):
        convert_voc(root, tmp_path / 'coco', ['train'], progress=False)


def test_images_are_linked_or_copied(tmp_path):
    root = write_voc(tmp_path / 'voc', {'a': []})
    out = tmp_path / 'coco'
    for _ in range(2):
        convert_voc(root, out, ['train'], progress=False)
        assert (out / 'JPEGImages').is_symlink()
    convert_voc(root, out, ['train'], copy_images=True, progress=False)
    assert not (out / 'JPEGImages').is_symlink()
    assert (out / 'JPEGImages' / 'a.jpg').is_file()
    (out / 'annotations' / 'train.json').unlink()
    with pytest.raises(FileExistsError, match='is there and no link'):
        convert_voc(root, out, ['train'], progress=False)
    assert not (out / 'annotations' / 'train.json').exists()
    # A data set may be converted in its own folder.
    convert_voc(root, root, ['train'], progress=False)
    assert (root / 'JPEGImages' / 'a.jpg').is_file()


@pytest.mark.skipif(not BCCD.is_dir(), reason='the BCCD data are not here')
def test_bccd_has_the_two_known_defects(tmp_path):
    conversion = convert_voc(BCCD, tmp_path, progress=False)
    assert conversion.classes == ('RBC', 'WBC', 'Platelets')
    assert conversion.images == {'train': 205, 'val': 87, 'test': 72}
    found = {(defect.split, defect.file) for defect in conversion.defects}
    assert found == {
        ('train', 'BloodImage_00343.xml'),
        ('val', 'BloodImage_00338.xml'),
    }
    assert sum(sum(boxes.values()) for boxes in conversion.boxes.values()) == 4886
