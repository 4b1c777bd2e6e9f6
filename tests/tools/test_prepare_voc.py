import json

import prepare_voc as prepare_voc_tool
import pytest
from PIL import Image

XML = """<annotation><object><name>{name}</name><bndbox>
<xmin>{xmin}</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / 'voc'
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (root / folder).mkdir(parents=True)
    boxes = {'a': ('cat', 1), 'b': ('dog', 20), 'c': ('dog', -3)}
    for name, (label, xmin) in boxes.items():
        Image.new('RGB', (30, 30)).save(root / 'JPEGImages' / f'{name}.jpg')
        text = XML.format(name=label, xmin=xmin)
        (root / 'Annotations' / f'{name}.xml').write_text(text)
    (root / 'ImageSets' / 'Main' / 'train.txt').write_text('a\nb\n')
    (root / 'ImageSets' / 'Main' / 'val.txt').write_text('c\n')
    return root


def test_the_command_tells_what_it_dropped_and_what_it_wrote(voc, tmp_path, capsys):
    out = tmp_path / 'coco'
    arguments = [str(voc), '--out', str(out), '--splits', 'train', 'val']
    prepare_voc_tool.main([*arguments, '--classes', 'dog', 'cat'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'dropped: train/b.xml: dog box (20, 1, 20, 20) has no area'
    assert lines[1] == (
        'kept: val/c.xml: dog box (-3, 1, 20, 20) reaches beyond its 30 x 30 image'
    )
    rows = [line.split('|')[1:-1] for line in lines if line.startswith('|')]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ['', 'train', 'val', 'all'],
        ['images', '2', '1', '3'],
        ['dog', '0', '1', '1'],
        ['cat', '1', '0', '1'],
    ]
    assert lines[-1] == '1 boxes dropped, 1 defects mended'
    train = json.loads((out / 'annotations' / 'train.json').read_text())
    # One column and row less than the inclusive corners (1, 1, 20, 20) hold.
    assert train['annotations'][0]['bbox'] == [0, 0, 19, 19]
    assert (out / 'JPEGImages' / 'a.jpg').is_file()

    prepare_voc_tool.main([*arguments, '--zero-based', '--copy-images'])
    train = json.loads((out / 'annotations' / 'train.json').read_text())
    assert train['annotations'][0]['bbox'] == [1, 1, 19, 19]
    assert not (out / 'JPEGImages').is_symlink()


def test_the_command_says_in_one_line_what_is_missing(voc, tmp_path):
    arguments = [str(voc), '--out', str(tmp_path / 'coco')]
    with pytest.raises(SystemExit, match=r"test\.txt; there are \['train', 'val'\]"):
        prepare_voc_tool.main(arguments)
    (voc / 'JPEGImages' / 'c.jpg').write_bytes(b'no image')
    with pytest.raises(SystemExit, match=r'cannot identify image file .*c\.jpg'):
        prepare_voc_tool.main([*arguments, '--splits', 'train', 'val'])
    assert not (tmp_path / 'coco').exists()
    nowhere = str(tmp_path / 'nowhere')
    with pytest.raises(SystemExit, match=f"^root: there is no folder '{nowhere}'$"):
        prepare_voc_tool.main([nowhere, *arguments[1:]])
    for out in (voc / 'ImageSets' / 'Main' / 'val.txt', '/proc/coco'):
        with pytest.raises(SystemExit, match=f"^--out: '{out}' cannot be written to"):
            prepare_voc_tool.main([str(voc), '--out', str(out)])
