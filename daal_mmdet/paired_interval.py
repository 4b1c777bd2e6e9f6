"""How sure the mean of paired differences is."""

from __future__ import annotations

import inspect

import numpy as np
from scipy.stats import bootstrap, sem, t

__all__ = ['paired_interval', 'student_interval']

# SciPy before 1.15 calls the generator by another name.
_RNG = 'rng' if 'rng' in inspect.signature(bootstrap).parameters else 'random_state'


def paired_interval(
    difference: np.ndarray, confidence: float = 0.95, resamples: int = 9999
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences.

    Too narrow where there are few: of normal differences, that of 95 % holds the mean
    in 75 % of cases with three pairs, 84 % with five and 90 % with ten.

    Args:
        difference: (n,) difference of each pair, n > 1.
        confidence: In (0, 1).
        resamples: Number of bootstrap samples; drawn with a fixed seed.

    Raises:
        ValueError: If there are fewer than two pairs.
    """
    difference = _pairs(difference)
    interval = bootstrap(
        (difference,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method='percentile',
        **{_RNG: np.random.default_rng(0)},
    ).confidence_interval
    return float(interval.low), float(interval.high)


def student_interval(
    difference: np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """Student's t interval of the mean of paired differences.

    Exact for normal differences, however few.

    Args:
        difference: (n,) difference of each pair, n > 1.
        confidence: In (0, 1).

    Raises:
        ValueError: If there are fewer than two pairs.
    """
    difference = _pairs(difference)
    reach = t.ppf((1 + confidence) / 2, len(difference) - 1) * sem(difference)
    mean = difference.mean()
    return float(mean - reach), float(mean + reach)


def _pairs(difference: np.ndarray) -> np.ndarray:
    difference = np.asarray(difference, dtype=np.float64)
    if difference.ndim != 1 or len(difference) < 2:
        raise ValueError(
            f'difference: expected at least two pairs, got shape {difference.shape}'
        )
    return difference
