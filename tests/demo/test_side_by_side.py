import json
import os
import sys
import time

import pytest
from mmengine.config import Config

from daal_mmdet.demo.side_by_side import Job, TrainingFailed, train_side_by_side
from daal_mmdet.logged_scalars import read_scalars

# Stands for tools/train.py: logs three iterations and a validation, as mmengine does.
SCRIPT = """
import json, os, pathlib, sys, time
config, flag, work_dir, *rest = sys.argv[1:]
assert flag == '--work-dir'
text = pathlib.Path(config).read_text()
print('threads', os.environ['OMP_NUM_THREADS'], 'resume', '--resume' in rest)
folder = pathlib.Path(work_dir) / str(time.time_ns()) / 'vis_data'
folder.mkdir(parents=True)
with open(folder / 'scalars.json', 'w') as file:
    for step in (10, 20, 30):
        file.write(json.dumps(dict(loss=1 / step, step=step)) + '\\n')
    pathlib.Path(work_dir, 'last_checkpoint').write_text('iter_30.pth')
    if 'crash' in text:
        file.flush()
        raise RuntimeError('no luck today')
    if 'sleep' in text and '--resume' not in rest:
        file.flush()
        time.sleep(600)
    file.write(json.dumps({'coco/bbox_mAP': 0.5, 'step': 30}) + '\\n')
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / 'train.py'
    path.write_text(SCRIPT)
    return path


def _job(folder, behaviour='normal', inputs=()):
    config = Config(dict(train_cfg=dict(max_iters=30), behaviour=behaviour))
    return Job(folder.name, config, folder, inputs)


def _nothing(iterations, losses):
    del iterations, losses


def _is_running(work_dir):
    """Whether a process with the folder on its command line is alive (Linux)."""
    for entry in os.scandir('/proc'):
        if entry.name.isdigit():
            try:
                with open(f'/proc/{entry.name}/cmdline', 'rb') as file:
                    if str(work_dir).encode() in file.read():
                        return True
            except OSError:
                continue
    return False


def test_jobs_run_and_report(tmp_path, script):
    jobs = [_job(tmp_path / 'a'), _job(tmp_path / 'b')]
    assert [job.state() for job in jobs] == ['new', 'new']
    reports = []
    train_side_by_side(jobs, script, lambda *report: reports.append(report))
    assert reports[-1] == ({'a': 30, 'b': 30}, {'a': 1 / 30, 'b': 1 / 30})
    assert [job.state() for job in jobs] == ['finished', 'finished']
    for job in jobs:
        assert read_scalars(job.work_dir).val['coco/bbox_mAP'] == 0.5
        assert job.console_log.read_text().endswith('resume False\n')
        assert Config.fromfile(job.config_file).train_cfg.max_iters == 30


def test_a_finished_run_counts_only_for_the_same_config_and_inputs(tmp_path, script):
    data = tmp_path / 'train.json'
    data.write_text('{}')
    train_side_by_side([_job(tmp_path / 'a', inputs=(data,))], script, _nothing)
    assert _job(tmp_path / 'a', inputs=(data,)).state() == 'finished'
    assert _job(tmp_path / 'a', 'other', (data,)).state() == 'new'
    data.write_text('{"images": []}')
    assert _job(tmp_path / 'a', inputs=(data,)).state() == 'new'


def test_a_new_run_starts_in_an_empty_folder(tmp_path, script):
    train_side_by_side([_job(tmp_path / 'a')], script, _nothing)
    (tmp_path / 'a' / 'stale.pth').touch()
    train_side_by_side([_job(tmp_path / 'a', 'other')], script, _nothing)
    assert not (tmp_path / 'a' / 'stale.pth').exists()
    assert len(list((tmp_path / 'a').glob('*/vis_data'))) == 1


def test_foreign_folders_are_not_deleted(tmp_path, script):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'thesis.tex').touch()
    with pytest.raises(FileExistsError, match='no earlier run of this comparison'):
        train_side_by_side([_job(tmp_path / 'a')], script, _nothing)
    assert (tmp_path / 'a' / 'thesis.tex').exists()


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_failure_shows_the_log_and_ends_the_others(tmp_path, script):
    jobs = [_job(tmp_path / 'sleeper', 'sleep'), _job(tmp_path / 'bad', 'crash')]
    start = time.monotonic()
    with pytest.raises(
        TrainingFailed,
        match=(
            r'training of bad ended with exit code 1; the end of .*console\.log:'
            r'[\s\S]*RuntimeError: no luck today'
        ),
    ):
        train_side_by_side(jobs, script, _nothing)
    assert time.monotonic() - start < 60
    assert not _is_running(tmp_path / 'sleeper')
    assert jobs[1].state() != 'finished'


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_an_interrupted_run_is_resumed(tmp_path, script):
    def interrupt(iterations, losses):
        del losses
        if iterations['a'] == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_side_by_side([_job(tmp_path / 'a', 'sleep')], script, interrupt)
    assert not _is_running(tmp_path / 'a')
    job = _job(tmp_path / 'a', 'sleep')
    assert job.state() == 'interrupted'
    train_side_by_side([job], script, _nothing)
    assert job.state() == 'finished'
    assert 'resume True' in job.console_log.read_text()
    assert len(list((tmp_path / 'a').glob('*/vis_data'))) == 2


def test_a_run_that_ended_before_its_validation_goes_back_a_checkpoint(
    tmp_path, script
):
    job = _job(tmp_path / 'a')
    job.work_dir.mkdir()
    job.record(finished=False)
    for name in ('iter_20.pth', 'iter_30.pth', 'last_checkpoint'):
        (job.work_dir / name).touch()
    assert job.state() == 'interrupted'
    train_side_by_side([job], script, _nothing)
    assert job.console_log.read_text().endswith('resume True\n')
    assert [p.name for p in job.work_dir.glob('*.pth')] == ['iter_20.pth']
    assert read_scalars(job.work_dir).val
    # Validated, it keeps what it has.
    job.record(finished=False)
    (job.work_dir / 'iter_30.pth').touch()
    train_side_by_side([job], script, _nothing)
    assert (job.work_dir / 'iter_30.pth').exists()


def test_scalars_of_several_starts_are_merged(tmp_path):
    for name, lines in {
        '20260101_000000': [dict(loss=3.0, step=10), dict(loss=2.0, step=20)],
        '20260101_000500': [
            dict(loss=2.5, step=20),
            dict(loss=1.0, step=30),
            {'coco/bbox_mAP': 0.4, 'step': 30},
        ],
    }.items():
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text(
            ''.join(json.dumps(line) + '\n' for line in lines) + '{"loss": 0.'
        )
    scalars = read_scalars(tmp_path)
    assert [(e['step'], e['loss']) for e in scalars.train] == [
        (10, 3.0),
        (20, 2.5),
        (30, 1.0),
    ]
    assert scalars.val == {'coco/bbox_mAP': 0.4, 'step': 30}


def test_scalars_of_a_folder_without_logs(tmp_path):
    assert read_scalars(tmp_path).train == ()
    assert read_scalars(tmp_path / 'nowhere').val == {}
