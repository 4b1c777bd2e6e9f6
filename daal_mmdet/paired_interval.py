"""How sure the mean of paired differences is."""

from __future__ import annotations

import inspect

import numpy as np
from scipy.stats import bootstrap

__all__ = ['paired_interval']

# SciPy before 1.15 calls the generator by another name.
_RNG = 'rng' if 'rng' in inspect.signature(bootstrap).parameters else 'random_state'


def paired_interval(
    difference: np.ndarray, confidence: float = 0.95, resamples: int = 9999
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences.

    Args:
        difference: (n,) difference of each pair, n > 1.
        confidence: In (0, 1).
        resamples: Number of bootstrap samples; drawn with a fixed seed.

    Raises:
        ValueError: If there are fewer than two pairs.
    """
    difference = np.asarray(difference, dtype=np.float64)
    if difference.ndim != 1 or len(difference) < 2:
        raise ValueError(
            f'difference: expected at least two pairs, got shape {difference.shape}'
        )
    interval = bootstrap(
        (difference,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method='percentile',
        **{_RNG: np.random.default_rng(0)},
    ).confidence_interval
    return float(interval.low), float(interval.high)
