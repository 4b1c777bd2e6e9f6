"""Data set of windows over a time series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

from daal_mmdet.forecasting.series import load_series
from daal_mmdet.validation import check_choice, check_flag, check_number

__all__ = ['SPLITS', 'SeriesWindows']

SPLITS = ('train', 'val', 'test')
_NOISE_KEYS = {'std', 'fraction', 'seed'}


@DATASETS.register_module()
class SeriesWindows(Dataset):
    """Windows over a series that is split by time: first train, then val, then test.

    Values are standardised by mean and standard deviation of the *train* part. An item
    is ``dict(inputs=(context, C) tensor, data_samples=BaseDataElement)``; the element's
    ``target`` is

    * for training (``test_mode=False``) the value after each input, (context, C);
    * otherwise the ``horizon`` values after the inputs, (horizon, C).

    Every target lies in the chosen part. Inputs may reach back into the part before,
    which is the known past there.

    Args:
        series: A CSV file, ``'statsmodels:<name>'`` or an array, see
            :func:`~daal_mmdet.forecasting.series.load_series`.
        columns: Names of the columns to use; None for all.
        split: 'train', 'val' or 'test'.
        fractions: Shares of the series for the three parts, > 0, of sum 1.
        context: Steps of an input, > 0.
        horizon: Steps to forecast, > 0.
        test_mode: Whether items are for evaluation instead of training.
        target_noise: Noise on the targets of training items: a dict of ``std`` (> 0, in
            standard deviations of the train part), ``fraction`` of the values that get
            it (in (0, 1], default 1) and ``seed`` (default 0). A value keeps its noise
            in every window and epoch, as a wrong label would. Inputs stay clean.
        naive_lag: m of the naive forecast y_{t-m} that scales MASE, > 0.

    Raises:
        FileNotFoundError, ImportError: As :func:`load_series`.
        TypeError, ValueError: If an argument is out of its range, a column or value of
            the series unusable, or the part too short; the message names it.
    """

    def __init__(
        self,
        series: str | Path | np.ndarray | Sequence,
        columns: Sequence[str] | None = None,
        split: str = 'train',
        fractions: Sequence[float] = (0.6, 0.2, 0.2),
        context: int = 33,
        horizon: int = 11,
        test_mode: bool = False,
        target_noise: dict | None = None,
        naive_lag: int = 1,
    ) -> None:
        check_choice('split', split, SPLITS)
        check_number('context', context, low=1, integer=True)
        check_number('horizon', horizon, low=1, integer=True)
        check_number('naive_lag', naive_lag, low=1, integer=True)
        check_flag('test_mode', test_mode)
        if test_mode and target_noise is not None:
            raise ValueError(
                'target_noise: expected None with test_mode=True, since noise is for '
                f'training only, got {target_noise!r}'
            )
        if target_noise is not None and not (
            isinstance(target_noise, dict)
            and {'std'} <= target_noise.keys() <= _NOISE_KEYS
        ):
            raise TypeError(
                'target_noise: expected a dict of std, and optionally fraction and '
                f'seed, got {target_noise!r}'
            )
        loaded = load_series(series, columns)
        begin, end = _part(len(loaded.values), split, fractions)
        # The first target of a window is at first, first + 1, ..., last.
        steps = horizon if test_mode else context
        self._first = max(begin, context if test_mode else 1)
        self._length = end - steps - self._first + 1
        if self._length < 1:
            raise ValueError(
                f'series: the {split} part has {end - begin} of {len(loaded.values)} '
                f'steps, too few for one window of context={context} and '
                f'horizon={horizon}'
            )
        train = loaded.values[: _part(len(loaded.values), 'train', fractions)[1]]
        mean, std = train.mean(0), train.std(0)
        # Rounding leaves the deviation of a constant above 0, not its range.
        spread = np.ptp(train, 0)
        if not np.all(spread > 0):
            name = loaded.columns[int(np.argmin(spread))]
            raise ValueError(f'series: column {name!r} is constant in the train part')
        self.context = context
        self.horizon = horizon
        self.test_mode = test_mode
        self.values = ((loaded.values - mean) / std).astype(np.float32)
        self.targets = self.values
        if target_noise is not None:
            self.targets = self.values + _draw_noise(self.values.shape, **target_noise)
        self._metainfo = dict(
            columns=loaded.columns,
            mean=mean.tolist(),
            std=std.tolist(),
            naive_lag=naive_lag,
            naive_scale=_naive_scale(train, naive_lag, loaded.columns).tolist(),
        )

    @property
    def metainfo(self) -> dict:
        """Columns, their ``mean``, ``std`` and ``naive_scale``, and ``naive_lag``.

        All are of the train part, in the unit of the series.
        """
        return dict(self._metainfo)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict:
        if not -self._length <= index < self._length:
            raise IndexError(f'index {index} of {self._length} windows')
        first = self._first + index % self._length
        start = first - self.context if self.test_mode else first - 1
        steps = self.horizon if self.test_mode else self.context
        inputs = self.values[start : start + self.context]
        target = self.targets[first : first + steps]
        sample = BaseDataElement(
            metainfo=dict(first_target=first), target=torch.tensor(target)
        )
        return dict(inputs=torch.tensor(inputs), data_samples=sample)


def _part(length: int, split: str, fractions: Sequence[float]) -> tuple[int, int]:
    """First step of a part, and the one after its last."""
    if len(fractions) != len(SPLITS) or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f'fractions: expected three numbers of sum 1, got {tuple(fractions)}'
        )
    for fraction in fractions:
        check_number('fractions', fraction, above=0)
    bounds = np.round(np.cumsum([0, *fractions]) * length).astype(int)
    index = SPLITS.index(split)
    return int(bounds[index]), int(bounds[index + 1])


def _draw_noise(
    shape: tuple[int, ...], std: float, fraction: float = 1.0, seed: int = 0
) -> np.ndarray:
    check_number('target_noise.std', std, above=0)
    check_number('target_noise.fraction', fraction, above=0, high=1)
    check_number('target_noise.seed', seed, low=0, integer=True)
    rng = np.random.default_rng(seed)
    noise = std * rng.standard_normal(shape)
    return np.where(rng.random(shape) < fraction, noise, 0).astype(np.float32)


def _naive_scale(train: np.ndarray, lag: int, columns: Sequence[str]) -> np.ndarray:
    """Mean absolute error of y_t = y_{t-lag} on the train part, (C,)."""
    if lag >= len(train):
        raise ValueError(
            f'naive_lag: expected less than the {len(train)} steps of the train part, '
            f'got {lag}'
        )
    scale = np.abs(train[lag:] - train[:-lag]).mean(0)
    if not np.all(scale > 0):
        name = columns[int(np.argmin(scale))]
        raise ValueError(
            f'naive_lag: column {name!r} repeats itself exactly after {lag} steps, so '
            'MASE is not defined'
        )
    return scale
