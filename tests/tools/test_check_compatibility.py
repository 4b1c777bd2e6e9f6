import dataclasses
import json

import check_compatibility as tool
import pytest

from daal_mmdet.compatibility.model_check import CheckResult


@pytest.fixture
def checked(monkeypatch):
    """Names that would have been checked, with CenterNet refused."""
    names = []

    def run_checks(configs, jobs, time_limit):
        for config in configs:
            names.append(config.name)
            status = 'refused' if 'centernet' in config.name else 'works'
            yield CheckResult(config.name, status, heads=sorted(config.heads()))

    monkeypatch.setattr(tool, 'run_checks', run_checks)
    return names


def arguments(tmp_path, *families):
    out, records = tmp_path / 'docs' / 'page.md', tmp_path / 'work' / 'records.jsonl'
    return ['--families', *families, '--out', str(out), '--records', str(records)]


def test_page_records_and_what_is_known_is_not_checked_again(checked, tmp_path, capsys):
    arguments_atss = arguments(tmp_path, 'atss', 'centernet')
    assert tool.main(arguments_atss) == 0
    assert [name.split('/')[0] for name in checked] == [
        'atss',
        'centernet',
        'centernet',
    ]
    page = (tmp_path / 'docs' / 'page.md').read_text()
    assert 'python tools/check_compatibility.py --families atss centernet' in page
    assert '| centernet | ' in page
    assert '1 of 2 families with a classification loss work' in capsys.readouterr().out
    lines = (tmp_path / 'work' / 'records.jsonl').read_text().splitlines()
    assert [json.loads(line)['config'] for line in lines] == checked
    assert tool.main(arguments(tmp_path, 'gfl', 'atss')) == 0
    assert len(checked) == 4
    assert checked[-1].startswith('gfl/')
    # The page of what is there, with nothing checked.
    assert tool.main([*arguments(tmp_path, 'gfl', 'lad'), '--table-only']) == 0
    assert len(checked) == 4
    page = (tmp_path / 'docs' / 'page.md').read_text()
    assert '| gfl | ' in page
    assert '| atss | ' not in page
    assert '--table-only' not in page
    left_out = page.split('Not looked at: ')[1]
    assert 'lad' in left_out
    assert 'gfl' not in left_out


def test_a_family_that_can_not_be_checked_gets_another_config(
    monkeypatch, tmp_path, capsys
):
    rounds = []

    def run_checks(configs, jobs, time_limit):
        rounds.append([config.name for config in configs])
        for config in configs:
            first = len(rounds) == 1 and config.family == 'carafe'
            yield CheckResult(config.name, 'not checked' if first else 'works')

    monkeypatch.setattr(tool, 'run_checks', run_checks)
    assert tool.main(arguments(tmp_path, 'carafe', 'atss')) == 0
    assert [len(names) for names in rounds] == [2, 1, 0]
    assert rounds[1][0].startswith('carafe/')
    assert rounds[1][0] not in rounds[0]
    rows = (tmp_path / 'docs' / 'page.md').read_text().split('| --- ')[-1]
    assert rows.count('| carafe | ') == 2
    assert '2 of 2 families' in capsys.readouterr().out


def test_a_head_that_can_not_be_checked_gets_another_config(monkeypatch, tmp_path):
    checked = []

    def run_checks(configs, jobs, time_limit):
        for config in configs:
            checked.append(config.name.split('/')[1])
            fails = checked[-1].startswith('cascade-rpn_r50')
            status = 'not checked' if fails else 'works'
            yield CheckResult(config.name, status, heads=sorted(config.heads()))

    monkeypatch.setattr(tool, 'run_checks', run_checks)
    # Fast R-CNN has the head of the box stage, so that nothing asks for another.
    assert tool.main(arguments(tmp_path, 'cascade_rpn', 'fast_rcnn')) == 0
    assert checked == [
        'cascade-rpn_r50-caffe_fpn_1x_coco.py',
        'fast-rcnn_r50_fpn_1x_coco.py',
        'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
    ]


def test_failures_are_told_and_the_exit_code_says_so(monkeypatch, tmp_path, capsys):
    def run_checks(configs, jobs, time_limit):
        for config in configs:
            yield CheckResult(config.name, 'fails', 'not finished after 300 seconds')

    monkeypatch.setattr(tool, 'run_checks', run_checks)
    assert tool.main(arguments(tmp_path, 'atss')) == 1
    assert 'FAILS: atss/' in capsys.readouterr().err


def test_errors_name_the_option(tmp_path, capsys):
    assert tool.main(arguments(tmp_path, 'yolov99')) == 2
    assert 'error: --families: expected some of' in capsys.readouterr().err
    table_only = [*arguments(tmp_path, 'atss'), '--table-only']
    records = tmp_path / 'work' / 'records.jsonl'
    with pytest.raises(SystemExit):
        tool.main(table_only)
    error = capsys.readouterr().err
    assert f"error: --records: there is no file '{records}'" in error
    records.parent.mkdir()
    records.touch()
    assert tool.main(table_only) == 2
    error = capsys.readouterr().err
    assert error == f'error: --records: there is no result in {records}\n'
    result = dataclasses.asdict(CheckResult('gfl/a.py', 'works'))
    records.write_text('"config\n{}\n')
    for given in (table_only, table_only[:-1]):
        assert tool.main(given) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == f"error: --records: {records}: line 1 is no JSON: '\"config'"
    records.write_text(json.dumps(result) + '\n')
    assert tool.main(table_only) == 2
    error = capsys.readouterr().err
    assert error == f"error: --families: {records} has no result of ['atss']\n"
    for option, path in (('--records', '/proc/a/b.jsonl'), ('--out', '/proc/a/b.md')):
        with pytest.raises(SystemExit, match=f"^{option}: '/proc/a' cannot be written"):
            tool.main(['--families', 'atss', option, path])
    with pytest.raises(SystemExit):
        tool.main(['--jobs', '0'])
    assert '--jobs: expected > 0, got 0' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main(['--time-limit', '-1'])
    assert '--time-limit: expected > 0, got -1.0' in capsys.readouterr().err
