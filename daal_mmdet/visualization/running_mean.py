"""Smoothing of noisy curves."""

from __future__ import annotations

import numpy as np

__all__ = ['running_mean']


def running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a tenth of a curve (k,); its ends use what there is."""
    width = max(1, len(values) // 20)
    kernel = np.ones(2 * width + 1)
    middle = slice(width, width + len(values))
    return (
        np.convolve(values, kernel)[middle]
        / np.convolve(np.ones(len(values)), kernel)[middle]
    )
