import json

import make_subset as make_subset_tool
import pytest
from PIL import Image

from daal_mmdet.visualization.class_counts import draw_class_counts
from tests.datasets.test_subset import document_of


@pytest.fixture
def source(tmp_path):
    document = document_of([[c] for c in range(4) for _ in range(12)], 4)
    images = tmp_path / 'images'
    images.mkdir()
    for image in document['images'][1:]:
        Image.new('RGB', (20, 20)).save(images / image['file_name'])
    document['annotations'][5]['bbox'] = [0, 0, float('nan'), 2]
    path = tmp_path / 'all.json'
    path.write_text(json.dumps(document))
    return path


def run(source, *arguments):
    out = source.parent / 'out' / 'subset.json'
    make_subset_tool.main([str(source), '--out', str(out), *map(str, arguments)])
    return json.loads(out.read_text())


def test_long_tail_with_images_report_and_figure(source, tmp_path, capsys):
    figure, kept = tmp_path / 'figures' / 'counts.png', tmp_path / 'kept'
    folder = ['--image-dir', tmp_path / 'images', '--copy-images', kept]
    subset = run(source, '--long-tail', 1.0, '--plot', figure, *folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        'left out: 1 images that are listed but not there (the first: 0.jpg)'
    )
    assert lines[1].startswith('left out: 1 annotations of an image that is not there')
    assert 'left out: 1 boxes without four finite numbers' in lines[2]
    rows = [line.split('|')[1:-1] for line in lines if line.startswith('|')]
    table = [[cell.strip() for cell in row] for row in rows]
    assert table[0] == ['class', 'frequency', 'images', 'of', 'instances', 'of']
    assert [row[3:] for row in table[1:]][:1] == [['12', '12', '12']]
    assert table[-1][0] == 'all'
    assert len(subset['images']) == int(table[-1][2]) < 47
    assert {p.name for p in kept.iterdir()} == {
        i['file_name'] for i in subset['images']
    }
    with Image.open(figure) as picture:
        assert picture.width > 400


def test_lvis_takes_its_letters_from_the_training_subset(source, tmp_path, capsys):
    val = run(source, '--images', 10, '--to-lvis', 'val2017', '--frequencies', source)
    assert [c['frequency'] for c in val['categories']] == ['c', 'c', 'c', 'c']
    assert val['images'][0]['coco_url'].startswith(
        'http://images.cocodataset.org/val2017/'
    )
    assert '| c         |' in capsys.readouterr().out
    # The source is where they come from by default, too.
    for options, letter in (([], 'c'), (['--frequencies', 'recount'], 'r')):
        made = run(source, '--images', 10, '--to-lvis', 'val2017', *options)
        assert {c['frequency'] for c in made['categories']} == {letter}
    # A subset of an LVIS file is one, with letters of its own if asked.
    path = tmp_path / 'out' / 'subset.json'
    path.rename(tmp_path / 'lvis.json')
    again = run(tmp_path / 'lvis.json', '--images', 2, '--frequencies', 'recount')
    assert {c['frequency'] for c in again['categories']} == {'r'}
    assert again['images'][0].keys() == val['images'][0].keys()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--images', '1000'], 'images: .* <= 48, got 1000'),
        (['--frequencies', 'recount'], 'frequencies: a COCO file has none'),
        (['--frequencies', 'no.json', '--to-lvis', 'x'], "no file 'no.json'"),
        (['--copy-images', 'x'], 'copy_images_to: needs image_dir'),
        (['--image-dir', 'nowhere'], "image_dir: there is no folder 'nowhere'"),
        (['--classes', 'emu'], r"classes: \['emu'\] are no categories"),
    ],
)
def test_mistakes_end_with_one_line(source, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(source, *arguments)
    assert not (source.parent / 'out' / 'subset.json').exists()


@pytest.mark.parametrize(
    ('option', 'place'),
    [
        ('--out', 'all.json/subset.json'),
        ('--copy-images', 'all.json/kept'),
        ('--plot', 'all.json/counts.png'),
    ],
)
def test_what_can_not_be_written_to_is_named_before_anything_is(
    source, option, place, tmp_path
):
    arguments = {'--out': str(tmp_path / 'a.json'), option: str(tmp_path / place)}
    if option == '--copy-images':
        arguments['--image-dir'] = str(tmp_path / 'images')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=rf"^{option}: '.*' cannot be written to \("):
        make_subset_tool.main([str(source), *sum(arguments.items(), ())])
    assert sorted(tmp_path.iterdir()) == before


def test_a_figure_of_an_unknown_format_is_named_before_the_subset(source):
    with pytest.raises(SystemExit, match=r"^--plot: expected .*, got 'counts\.xyz'$"):
        run(source, '--plot', 'counts.xyz')
    assert not (source.parent / 'out').exists()


def test_a_folder_is_never_replaced_by_the_file(source, tmp_path):
    link = tmp_path / 'link'
    link.symlink_to(source.parent)
    with pytest.raises(SystemExit, match='^--out: expected a file, got the folder'):
        make_subset_tool.main([str(source), '--out', str(link)])
    assert link.is_symlink()


@pytest.mark.parametrize(
    'options', [['--to-lvis', 'val2017'], ['--copy-images', 'kept']]
)
@pytest.mark.parametrize('place', ['{}/images/1.jpg', '../images/1.jpg'])
def test_names_that_lead_out_of_the_folder_are_refused(
    source, tmp_path, monkeypatch, options, place
):
    monkeypatch.chdir(tmp_path)
    name = place.format(tmp_path)
    document = json.loads(source.read_text())
    for image in document['images']:
        image['file_name'] = name
    source.write_text(json.dumps(document))
    message = f'below the folder of the images, got {name}, '
    with pytest.raises(SystemExit, match=message):
        run(source, *options, '--image-dir', tmp_path / 'images')
    assert not (tmp_path / 'kept').exists()


def test_the_source_is_never_overwritten(source):
    before = source.read_bytes()
    with pytest.raises(SystemExit, match='is the source itself'):
        make_subset_tool.main([str(source), '--out', str(source)])
    link = source.parent / 'link'
    link.symlink_to(source.parent)
    with pytest.raises(SystemExit, match='is the source itself'):
        run(link / source.name, '--out', source)
    # Nor is the file that tells how frequent the classes are.
    letters = source.with_name('letters.json')
    letters.write_bytes(before)
    options = ['--to-lvis', 'val2017', '--frequencies', letters]
    with pytest.raises(SystemExit, match='is the file of the frequencies itself'):
        run(source, *options, '--out', link / letters.name)
    assert source.read_bytes() == letters.read_bytes() == before


def test_figure_checks_its_counts():
    with pytest.raises(ValueError, match='subset: expected 2 counts.*got 1'):
        draw_class_counts(('a', 'b'), [1, 2], [1])
