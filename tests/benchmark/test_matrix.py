import dataclasses
import fcntl
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from daal_mmdet.benchmark.matrix import MatrixFolder, run_matrix
from daal_mmdet.benchmark.table import benchmark_table, select_records


def steps(folder, run):
    return (folder.run_folder(run) / 'steps').read_text().split()


def wait_until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path):
    return MatrixFolder(tmp_path / 'out')


def test_all_runs_are_made_once_and_recorded(spec, folder, trainer):
    plan = spec.plan()[:4]
    shares = []
    records, failures = run_matrix(
        plan,
        folder,
        jobs=2,
        threads=3,
        command=trainer,
        on_progress=lambda running, finished, share: shares.append(share),
    )
    assert failures == []
    assert [(r['variant'], r['seed']) for r in records] == [
        (run.variant, run.seed) for run in plan
    ]
    assert len({r['test']['mAP'] for r in records}) == 4
    assert shares == sorted(shares)
    assert shares[-1] == 1
    key = 'variant', 'seed'
    on_disk = sorted(folder.records(), key=lambda r: [r[k] for k in key])
    assert on_disk == sorted(records, key=lambda r: [r[k] for k in key])
    for run in plan:
        assert steps(folder, run) == ['0', '1', '2', '3']
        log = (folder.run_folder(run) / 'console.log').read_text()
        assert log == 'threads 3\n'

    # Again: nothing is run, not even a process.
    again, _ = run_matrix(plan, folder, command=['no such program'])
    assert again == records

    # A change of the config is another run.
    changed = dataclasses.replace(spec, overrides={'model.loss.beta': 9}).plan()
    more, _ = run_matrix(changed[:1], folder, command=trainer)
    assert more[0]['config'] != records[0]['config']
    assert len(folder.records()) == 5


def test_a_result_that_was_not_recorded_is_not_made_again(spec, folder, trainer):
    plan = spec.plan()[:2]
    records, _ = run_matrix(plan, folder, command=trainer)
    lines = folder.records_file.read_text().splitlines()
    folder.records_file.write_text(lines[0] + '\n' + lines[1][:30])
    again, _ = run_matrix(plan, folder, command=['no such program'])
    assert again == records
    assert folder.records() == records


def test_two_benchmarks_in_one_folder_record_a_run_once(spec, folder, trainer):
    plan = spec.plan()[:2]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run_matrix, plan, folder, command=trainer) for _ in 'ab']
    one, other = (made.result() for made in both)
    assert one == other
    assert one == (folder.records(), [])


def test_a_crash_is_reported_and_the_others_go_on(spec, folder, trainer):
    plan = [run for run in spec.plan() if run.seed < 2 and run.variant != 'three']
    for run in plan:
        run.config.behaviour = 'crash'
    records, failures = run_matrix(plan, folder, command=trainer)
    assert [r['seed'] for r in records] == [0, 0]
    assert [(f.run.variant, f.run.seed, f.exit_code) for f in failures] == [
        ('one', 1, 1),
        ('two', 1, 1),
    ]
    assert str(failures[0]).startswith('one, seed 1 ended with exit code 1; the end of')
    assert 'no luck today' in str(failures[0])
    # The cause gone, the same call makes what is missing.
    for run in plan:
        run.config.behaviour = 'normal'
    records, failures = run_matrix(plan, folder, command=trainer)
    assert [r['seed'] for r in records] == [0, 0, 1, 1]
    assert failures == []


HARNESS = """
import pathlib, sys
from daal_mmdet.benchmark.matrix import MatrixFolder, run_matrix
from daal_mmdet.benchmark.spec import load_spec
spec, out, *command = sys.argv[1:]
run_matrix(load_spec(pathlib.Path(spec)).plan(), MatrixFolder(pathlib.Path(out)), 2,
           command=command)
"""


def test_killed_in_the_middle_it_goes_on_and_the_table_is_the_same(
    spec, spec_file, folder, trainer, tmp_path
):
    base = tmp_path / 'base.py'
    base.write_text(base.read_text().replace("'normal'", "'wait'"))
    plan = spec.plan()
    whole = MatrixFolder(tmp_path / 'whole')
    expected, _ = run_matrix(plan, whole, jobs=2, command=trainer)

    hold = folder.root / 'hold'
    folder.root.mkdir()
    script = tmp_path / 'harness.py'
    script.write_text(HARNESS)
    command = [sys.executable, str(script), str(spec_file), str(folder.root), *trainer]
    harness = subprocess.Popen(command)

    def halfway():
        files = folder.root.glob('runs/*/steps')
        return [path for path in files if path.read_text() == '0 1 ']

    try:
        wait_until(lambda: len(folder.records()) >= 2)
        hold.write_text('')
        wait_until(halfway)
    finally:
        # SIGKILL.
        harness.kill()
        harness.wait()
    # The runs that it started end with it.
    locks = [path.parent / 'lock' for path in halfway()]
    wait_until(lambda: not any(is_locked(path) for path in locks))
    before = folder.records_file.read_text()
    assert 2 <= len(folder.records()) < len(plan)

    # What is half done counts, for the bar of the next call too.
    found = len(folder.records())
    unfinished = [run for run in plan if run not in folder.find(plan)]
    half = sum(map(folder.progress, unfinished))
    assert half >= 0.5
    shares = []

    hold.unlink()
    records, failures = run_matrix(
        plan,
        folder,
        jobs=2,
        command=trainer,
        on_progress=lambda running, finished, share: shares.append(share),
    )
    assert failures == []
    assert shares[0] >= (found + half) / len(plan)
    assert shares[-1] == 1
    assert folder.records_file.read_text().startswith(before)
    for run in plan:
        assert steps(folder, run) == ['0', '1', '2', '3'], 'a step was repeated'
    tables = [
        benchmark_table(select_records(made, spec), spec)
        for made in (expected, records, folder.records())
    ]
    assert tables[0] == tables[1] == tables[2]
    assert 'Not there yet' not in tables[0]


def is_locked(path):
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_runs_are_shared_between_specs(spec, folder, trainer):
    plan = spec.plan()[:1]
    run_matrix(plan, folder, command=trainer)
    (other,) = (run for run in spec.plan()[:1])
    object.__setattr__(other, 'variant', 'by another name')
    (record,), _ = run_matrix([other], folder, command=['no such program'])
    assert record['variant'] == 'by another name'


def test_records_are_json(spec, folder, trainer):
    run_matrix(spec.plan()[:1], folder, command=trainer)
    (line,) = folder.records_file.read_text().splitlines()
    record = json.loads(line)
    assert record['data'] == 'toy'
    assert record['work_dir'] == f'runs/{spec.plan()[0].folder}'
