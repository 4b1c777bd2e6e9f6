import fcntl
import json
import re
import subprocess
import sys
import time

import benchmark
import pytest
from mmengine.config import Config

from daal_mmdet.benchmark.matrix import Failure, MatrixFolder, run_matrix
from daal_mmdet.benchmark.spec import load_spec
from daal_mmdet.benchmark.table import benchmark_table
from daal_mmdet.run_records import append_record

SPEC = """
data = 'six images'
base_config = 'small.py'
seeds = [0]
metrics = ['mAP', 'mAP_50', 'class_AP']
compare = ['mAP']
variants = {
    'FocalLoss': dict(),
    'ours': {
        'model.bbox_head.loss_cls': dict(type='DAALLoss'),
        'model.bbox_head.loss_bbox': dict(type='UncertaintyAwareSmoothL1', beta=0.0),
        'custom_hooks': [dict(type='KalmanCovarianceHook')],
    },
}
"""


@pytest.fixture
def spec_file(small_coco, tmp_path, request):
    folder = request.config.rootpath / 'configs' / 'bccd'
    config = small_coco(Config.fromfile(folder / 'retinanet_mobilenetv2_focal.py'))
    config.merge_from_dict(
        dict(
            train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=6),
            train_dataloader=dict(sampler=dict(type='InfiniteSampler')),
            log_processor=dict(by_epoch=False),
            param_scheduler=None,
            # Else so short a training detects nothing.
            model=dict(test_cfg=dict(score_thr=0.0, max_per_img=300)),
        )
    )
    config.dump(tmp_path / 'small.py')
    path = tmp_path / 'killed.py'
    path.write_text(SPEC)
    return path


def wait_until(condition, process, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        assert process.poll() is None, 'the benchmark ended'
        time.sleep(0.02)


def wait_for_lock(path):
    """Return when the process that runs in a folder has ended."""
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_killed_in_the_middle_of_a_training_it_goes_on(
    spec_file, tmp_path, request, capsys
):
    out = tmp_path / 'out'
    folder = MatrixFolder(out)
    arguments = [str(spec_file), '--out', str(out), '--threads', '1']
    script = request.config.rootpath / 'tools' / 'benchmark.py'
    command = [sys.executable, str(script), *arguments]
    plan = load_spec(spec_file).plan()
    first, second = (folder.run_folder(run) for run in plan)

    with (tmp_path / 'console.txt').open('w') as log:
        killed = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            # Written when a checkpoint is whole.
            wait_until((second / 'last_checkpoint').is_file, killed)
        finally:
            # SIGKILL.
            killed.kill()
            killed.wait()
    wait_for_lock(second / 'lock')
    assert not (second / 'result.json').exists(), 'it was not killed in the middle'
    before = folder.records_file.read_text()
    assert [record['variant'] for record in folder.records()] == ['FocalLoss']
    printed = (first / 'console.log').read_text()

    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 'killed 100.0%' in again.stderr
    assert folder.records_file.read_text().startswith(before)
    focal, ours = folder.records()
    # The finished run was left alone, the other one resumed.
    assert (first / 'console.log').read_text() == printed
    assert re.search(
        r'resumed epoch: 0, iter: [1-5]\b', (second / 'console.log').read_text()
    )

    # One that nobody killed.
    ((whole,), _) = run_matrix(plan[1:], MatrixFolder(tmp_path / 'whole'), threads=1)
    spec = load_spec(spec_file)
    tables = [
        benchmark_table([r | dict(seconds_per_iteration=None) for r in records], spec)
        for records in ((focal, ours), (focal, whole))
    ]
    assert tables[0] == tables[1]
    assert whole['test']['mAP_50'] > 0
    for key in ('config', 'seed', 'versions', 'device', 'threads', 'iterations'):
        assert ours[key] == whole[key]
    assert ours['seconds_per_iteration'] > 0

    # Once more: nothing to do, and the same table.
    table = (out / 'killed' / 'test_table.md').read_text()
    assert table in again.stdout
    assert '6 iters, from scratch' in table
    assert benchmark.main(arguments) == 0
    captured = capsys.readouterr()
    assert 'All 2 runs are finished' in captured.out
    assert table in captured.out
    assert sorted(path.name for path in (out / 'killed').glob('*.png')) == [
        'adaptation.png',
        'losses.png',
        'test_class_ap.png',
        'test_differences.png',
    ]


def test_tables_of_records_from_elsewhere(spec_file, tmp_path, capsys):
    records = tmp_path / 'theirs.jsonl'
    for variant, ap in (('FocalLoss', 0.1), ('ours', 0.3)):
        part = dict(mAP=ap, mAP_50=ap, class_AP=dict(a=ap, b=ap, c=ap))
        record = dict(data='six images', variant=variant, seed=0, val=part, test=part)
        append_record(records, record | dict(config=f'config of {variant}'))
    arguments = [str(spec_file), '--out', str(tmp_path), '--table-only']
    arguments += ['--records', str(records)]
    assert benchmark.main(arguments) == 0
    # Records from elsewhere have a folder of their own, and say no schedule.
    table = (tmp_path / 'killed_of_theirs' / 'test_table.md').read_text()
    assert table.startswith('six images, records of theirs.jsonl: test part, ')
    assert '| ours | 1 | +0.200 |' in table
    # So has another schedule, and another baseline.
    arguments += ['--schedule', '12']
    assert benchmark.main([*arguments, '--baseline', 'ours']) == 0
    table = (
        tmp_path / 'killed_12iters_to_ours_of_theirs' / 'test_table.md'
    ).read_text()
    assert 'Difference to ours, paired by seed' in table
    assert '| FocalLoss | 1 | -0.200 |' in table
    lines = map(json.loads, records.read_text().splitlines())
    told = [json.dumps(line | {'setting': '12 iters, from scratch'}) for line in lines]
    records.write_text('\n'.join(told))
    assert benchmark.main([*arguments, '--name', 'mine']) == 0
    assert (tmp_path / 'mine' / 'test_class_ap.png').is_file()
    table = (tmp_path / 'mine' / 'test_table.md').read_text()
    assert table.startswith('six images, 12 iters, from scratch: test part, ')


def test_an_empty_table_replaces_none(spec_file, tmp_path, capsys):
    records, others = tmp_path / 'ours.jsonl', tmp_path / 'theirs.jsonl'
    part = dict(mAP=0.1, mAP_50=0.1, class_AP=dict(a=0.1, b=0.1, c=0.1))
    for path, data in ((records, 'six images'), (others, 'elsewhere')):
        record = dict(data=data, variant='FocalLoss', seed=0, val=None, test=part)
        append_record(path, record)
    arguments = [str(spec_file), '--out', str(tmp_path), '--table-only']
    assert benchmark.main([*arguments, '--records', str(records)]) == 0
    table = tmp_path / 'killed_of_ours' / 'test_table.md'
    before = table.read_text()
    assert '| FocalLoss | 1 | 0.100 |' in before
    capsys.readouterr()

    for wrong, file, split in (
        ([], tmp_path / 'runs.jsonl', 'test'),
        (['--records', str(others)], others, 'test'),
        (['--records', str(records), '--split', 'val'], records, 'val'),
    ):
        assert benchmark.main([*arguments, *wrong]) == 1
        assert capsys.readouterr().err == (
            f'error: no table written: {file} has no finished run on six images with '
            f'a {split} part\n'
        )
    with pytest.raises(SystemExit):
        benchmark.main([*arguments, '--records', 'typo.jsonl'])
    assert "--records: there is no file 'typo.jsonl'" in capsys.readouterr().err
    assert table.read_text() == before
    assert list(table.parent.glob('*table.md')) == [table]


def test_missing_weights_and_data_end_it_before_the_first_run(
    spec_file, tmp_path, monkeypatch, request
):
    def refuse(*args, **kwargs):
        raise AssertionError('a run was started')

    monkeypatch.setattr(benchmark, 'run_matrix', refuse)
    out = ['--out', str(tmp_path / 'out')]
    shipped = request.config.rootpath / 'configs' / 'benchmark' / 'bccd_losses.py'
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit,
        match=r'^train_dataloader\.dataset\.ann_file: there is no file '
        r"'data/bccd/annotations/train\.json'\. Convert the Pascal VOC files",
    ):
        benchmark.main([str(shipped), *out])
    monkeypatch.setenv('BACKBONE_CHECKPOINT', 'no.pth')
    with pytest.raises(
        SystemExit, match=r"^BACKBONE_CHECKPOINT: there is no file 'no\.pth'$"
    ):
        benchmark.main([str(shipped), *out])
    assert not (tmp_path / 'out').exists()
    with pytest.raises(AssertionError, match='a run was started'):
        benchmark.main([str(spec_file), *out])
    # A test of other labels than those trained would be of nothing.
    document = json.loads((tmp_path / 'data.json').read_text())
    document['categories'].reverse()
    (tmp_path / 'test.json').write_text(json.dumps(document))
    spec_file.write_text(
        SPEC + "overrides = {'test_dataloader.dataset.ann_file': 'test.json'}"
    )
    with pytest.raises(SystemExit, match='the files stand in different orders'):
        benchmark.main([str(spec_file), *out])
    with pytest.raises(AssertionError, match='a run was started'):
        benchmark.main([str(spec_file), *out, '--no-data-check'])


def test_runs_that_failed_are_told_where_no_table_can_be_made(
    spec_file, tmp_path, monkeypatch, capsys
):
    def fail(plan, folder, args):
        part = dict(mAP=0.1, class_AP=dict(a=0.1, b=0.1, c=0.1))
        made = dict(data='six images', variant='FocalLoss', seed=0, val=None, test=part)
        append_record(folder.records_file, made | dict(config=plan[0].hash))
        return [Failure(plan[1], 1, tmp_path / 'console.log')]

    monkeypatch.setattr(benchmark, 'run_with_bar', fail)
    (tmp_path / 'console.log').write_text('no luck today')
    text = spec_file.read_text()
    spec_file.write_text(f"{text}class_means = dict(rare=['horse'])\n")
    spec_file.write_text(spec_file.read_text().replace("'mAP_50'", "'rare'"))
    assert benchmark.main([str(spec_file), '--out', str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "error: class_means: 'rare' names ['horse']" in error
    assert 'FAILED: ours, seed 0' in error


def test_bad_arguments_are_named(spec_file, tmp_path, capsys):
    arguments = [str(spec_file), '--out', str(tmp_path)]
    for wrong, message in (
        (['--jobs', '0'], '--jobs: expected a number > 0, got 0'),
        (['--dpi', '-1'], '--dpi: expected a number > 0, got -1'),
        (['--records', 'a.jsonl'], '--records: only with --table-only'),
    ):
        with pytest.raises(SystemExit):
            benchmark.main([*arguments, *wrong])
        assert message in capsys.readouterr().err
    for wrong, message in (
        (
            ['--variants', 'our'],
            r"--variants: expected some of \['FocalLoss', 'ours'\]",
        ),
        (['--adopt', str(tmp_path / 'no')], r'expected one config \(\*.py\), got 0'),
        (
            ['--baseline', 'our'],
            r"baseline: expected one of \['FocalLoss', 'ours'\], got 'our'",
        ),
        (['--seeds', '-1'], 'seeds: expected a value >= 0, got -1'),
    ):
        assert benchmark.main([*arguments, *wrong]) == 1
        assert re.search(message, capsys.readouterr().err)
    with pytest.raises(SystemExit, match="^--out: '/proc/a' cannot be written to"):
        benchmark.main([str(spec_file), '--out', '/proc/a'])
    assert benchmark.main([str(tmp_path / 'no.py')]) == 1
    assert 'spec: there is no file' in capsys.readouterr().err
