import numpy as np

from daal_mmdet.visualization.running_mean import running_mean


def test_mean_over_a_tenth_and_of_what_there_is_at_the_ends():
    values = np.random.default_rng(0).normal(size=60)
    expected = [values[max(0, i - 3) : i + 4].mean() for i in range(60)]
    np.testing.assert_allclose(running_mean(values), expected)


def test_short_curves():
    np.testing.assert_allclose(running_mean(np.array([2.0])), [2])
    np.testing.assert_allclose(running_mean(np.array([1.0, 3.0])), [2, 2])
