import os
import signal
import time

import pytest

from daal_mmdet.compatibility.check_runner import run_checks
from daal_mmdet.compatibility.model_check import CheckResult
from daal_mmdet.compatibility.shipped_configs import ShippedConfig


def check(config):
    """What a config's name says."""
    print('noise')
    deed = config.name.split('/')[1]
    if deed == 'hang':
        time.sleep(60)
    elif deed == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == 'exit':
        os._exit(3)
    elif deed == 'slow':
        time.sleep(0.5)
    return CheckResult(config.name, 'works', str(os.getpid()))


def run(*deeds, **options):
    configs = [ShippedConfig(f'family/{deed}', {}) for deed in deeds]
    results = list(run_checks(configs, check=check, **options))
    return {result.config.split('/')[1]: result for result in results}


def test_each_check_has_a_process_of_its_own(capfd):
    results = run('a', 'b')
    assert {result.status for result in results.values()} == {'works'}
    assert len({os.getpid(), *(int(r.reason) for r in results.values())}) == 3
    # mmdet prints a lot.
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('jobs', [1, 2])
def test_one_that_hangs_or_dies_is_a_result_and_not_the_end(jobs):
    results = run('hang', 'die', 'exit', 'fine', jobs=jobs, time_limit=2.0)
    assert results['hang'].status == 'fails'
    assert results['hang'].reason == 'not finished after 2 seconds'
    assert results['die'].reason == 'its process died with exit code -9'
    assert results['exit'].reason == 'its process died with exit code 3'
    assert results['fine'].status == 'works'


def test_jobs_run_at_once_and_results_come_as_they_are_ready():
    results = list(run('slow', 'quick', jobs=2))
    assert results == ['quick', 'slow']


def test_nothing_is_left_when_the_caller_stops():
    configs = [ShippedConfig(f'family/{deed}', {}) for deed in ('quick', 'hang')]
    results = run_checks(configs, jobs=2, check=check)
    assert next(results).status == 'works'
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 10
