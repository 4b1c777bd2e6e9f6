import os

from daal_mmdet.child_process import (
    failure_message,
    threads_for,
    training_environment,
)


def test_threads_are_shared_out():
    cores = len(os.sched_getaffinity(0))
    assert threads_for(1, {}) == cores
    assert threads_for(10 * cores, {}) == 1
    assert threads_for(1, {'OMP_NUM_THREADS': '1'}) == 1
    assert threads_for(1, {'OMP_NUM_THREADS': str(cores + 5)}) == cores
    assert threads_for(1, {'OMP_NUM_THREADS': 'all'}) == cores


def test_the_rest_of_the_environment_stays(monkeypatch):
    monkeypatch.setenv('A_NAME_OF_THIS_TEST', 'x')
    environment = training_environment(3)
    assert environment['OMP_NUM_THREADS'] == environment['MKL_NUM_THREADS'] == '3'
    assert environment['A_NAME_OF_THIS_TEST'] == 'x'


def test_a_training_asks_for_huge_pages_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv('THP_MEM_ALLOC_ENABLE', raising=False)
    assert training_environment(1)['THP_MEM_ALLOC_ENABLE'] == '1'
    monkeypatch.setenv('THP_MEM_ALLOC_ENABLE', '0')
    assert training_environment(1)['THP_MEM_ALLOC_ENABLE'] == '0'


def test_a_failure_shows_the_last_lines(tmp_path):
    log = tmp_path / 'console.log'
    log.write_bytes(b'\xff' + b''.join(b'line %d\n' % i for i in range(40)))
    lines = failure_message('one, seed 1', 7, log).splitlines()
    assert lines[0] == f'one, seed 1 ended with exit code 7; the end of {log}:'
    assert lines[1:] == [f'line {i}' for i in range(25, 40)]
