from daal_mmdet.compatibility.model_check import CheckResult
from daal_mmdet.compatibility.table import (
    compatibility_page,
    count_families,
    versions,
)

RESULTS = [
    CheckResult(
        'retinanet/retinanet_r50.py',
        'works',
        '',
        ['RetinaHead'],
        ['sigmoid'],
        box='works',
    ),
    CheckResult('retinanet/other.py', 'fails', 'ValueError: a | b', ['RetinaHead']),
    CheckResult('centernet/a.py', 'refused', 'heat maps', ['CenterNetHead']),
    CheckResult('ssd/ssd300.py', 'refused', 'no loss_cls', [], configured=False),
    CheckResult('convnext/b.py', 'not checked', 'ImportError: mmpretrain'),
    CheckResult('convnext/d.py', 'not checked', 'ImportError: mmpretrain'),
    CheckResult('convnext/e.py', 'not checked', 'too large'),
    CheckResult('yolo/c.py', 'works', '', ['YOLOV3Head'], ['sigmoid, soft targets']),
]


def test_families_with_a_loss_that_were_checked_count():
    assert count_families(RESULTS) == (2, 3)
    assert count_families([]) == (0, 0)


def test_a_row_for_each_config_under_the_command():
    page = compatibility_page(RESULTS, 'python tools/x.py --out y', 'mmdet 3')
    head, table = page.split('```shell\npython tools/x.py --out y\n```')
    assert head.startswith('# Which detectors work\n')
    assert 'mmdet 3. **2 of 3 families (67%)' in table
    assert 'Could not be checked: convnext.\n' in table
    rows = [line for line in table.splitlines() if line.startswith('|')][2:]
    assert rows[0] == (
        '| retinanet | retinanet_r50 | RetinaHead | sigmoid | works | works |  |'
    )
    assert rows[1].endswith(r'| fails |  | ValueError: a \| b |')
    # Two could not be checked for the same reason.
    assert len(rows) == len(RESULTS) - 1
    assert sum('mmpretrain' in row for row in rows) == 1
    assert page.endswith('|\n')


def test_versions_name_the_packages():
    assert {'mmdet', 'mmengine', 'PyTorch'} <= set(versions().replace(',', '').split())


def test_a_page_without_results():
    page = compatibility_page([], 'x', 'y')
    assert '0 of 0 families (none)' in page
    assert 'Could not be checked: none.' in page
