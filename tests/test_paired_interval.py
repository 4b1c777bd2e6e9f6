import runpy
from functools import partial

import numpy as np
import pytest
import scipy.stats

from daal_mmdet.paired_interval import paired_interval, student_interval


def test_interval_is_that_of_slow_resampling():
    rng = np.random.default_rng(1)
    difference = rng.normal(0.3, 1, 10)
    means = [rng.choice(difference, 10).mean() for _ in range(20_000)]
    low, high = np.percentile(means, [2.5, 97.5])
    got = paired_interval(difference)
    np.testing.assert_allclose(got, (low, high), atol=0.03)
    assert got == paired_interval(difference)


def test_scipy_before_1_15_gives_the_same(monkeypatch):
    new = scipy.stats.bootstrap
    name = paired_interval.__globals__['_RNG']

    def old(data, statistic, *, random_state, **options):
        return new(data, statistic, **{name: random_state}, **options)

    monkeypatch.setattr(scipy.stats, 'bootstrap', old)
    made = runpy.run_module('daal_mmdet.paired_interval')['paired_interval']
    assert made([0, 1, 3]) == paired_interval([0, 1, 3])


def test_student_interval_is_that_of_scipy():
    difference = np.array([0.3, -0.1, 0.7, 0.2])
    expected = scipy.stats.ttest_1samp(difference, 0).confidence_interval(0.9)
    np.testing.assert_allclose(student_interval(difference, 0.9), expected)
    assert student_interval([0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize(('pairs', 'bootstrapped'), [(3, 0.75), (5, 0.84), (10, 0.9)])
def test_how_often_the_intervals_of_few_pairs_hold_the_mean(pairs, bootstrapped):
    samples = np.random.default_rng(0).standard_normal((500, pairs))
    for interval, share in (
        (partial(paired_interval, resamples=999), bootstrapped),
        (student_interval, 0.95),
    ):
        bounds = np.array([interval(sample) for sample in samples])
        holds = (bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)
        # Three standard deviations of the share.
        assert abs(holds.mean() - share) < 3 * np.sqrt(share * (1 - share) / 500)


@pytest.mark.parametrize('interval', [paired_interval, student_interval])
def test_one_pair_has_no_interval(interval):
    with pytest.raises(
        ValueError, match=r'expected at least two pairs, got shape \(1,\)'
    ):
        interval(np.ones(1))
