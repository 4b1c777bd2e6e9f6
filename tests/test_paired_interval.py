import runpy

import numpy as np
import pytest
import scipy.stats

from daal_mmdet.paired_interval import paired_interval


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


def test_one_pair_has_no_interval():
    with pytest.raises(
        ValueError, match=r'expected at least two pairs, got shape \(1,\)'
    ):
        paired_interval(np.ones(1))
