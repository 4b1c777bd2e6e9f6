"""Reading a time series from a CSV file, an array, or a bundle of statsmodels."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ['Series', 'load_series']

_BUNDLED = 'statsmodels:'


class Series:
    """Values of one or more variables at equal steps of time.

    Args:
        values: (T, C) numbers, rows in the order of time.
        columns: C names.

    Attributes:
        values: (T, C), float64.
        columns: C names.

    Raises:
        ValueError: If the shapes do not fit or a value is not finite; the message
            names the column and the row.
    """

    def __init__(self, values: np.ndarray, columns: Sequence[str]) -> None:
        self.values = np.asarray(values, dtype=np.float64)
        self.columns = tuple(columns)
        if self.values.ndim != 2 or self.values.shape[1] != len(self.columns):
            raise ValueError(
                f'series: expected shape (T, {len(self.columns)}), got '
                f'{self.values.shape}'
            )
        bad = np.argwhere(~np.isfinite(self.values))
        if len(bad):
            row, column = bad[0]
            raise ValueError(
                f'series: {len(bad)} values are not finite, the first in row {row} of '
                f'column {self.columns[column]!r}. Fill or drop them first'
            )

    def select(self, columns: Sequence[str]) -> Series:
        """Take some columns, in the order given."""
        return Series(
            self.values[:, _positions(self.columns, columns, 'series')], columns
        )


def load_series(
    source: str | Path | np.ndarray | Sequence, columns: Sequence[str] | None = None
) -> Series:
    """Read a series.

    Args:
        source: A CSV file with a line of column names; ``'statsmodels:<name>'`` for a
            data set bundled with statsmodels, e.g. ``'statsmodels:sunspots'``; or an
            array or nested lists, (T,) or (T, C), whose columns are named '0', '1', ...
        columns: Names of the columns to use; None for all.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If statsmodels is needed and not installed.
        ValueError: If a column or data set is unknown, a column's name not unique, or a
            value no finite number; the message names it.
    """
    if isinstance(columns, str):
        raise ValueError(f'columns: expected a list of names, got {columns!r}')
    if not isinstance(source, (str, Path)):
        try:
            values = np.asarray(source, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"series: expected a file, '{_BUNDLED}<name>', or numbers of shape "
                f'(T,) or (T, C), got {type(source).__name__} ({error})'
            ) from error
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2:
            raise ValueError(
                f'series: expected shape (T,) or (T, C), got {values.shape}'
            )
        series = Series(values, [str(i) for i in range(values.shape[1])])
        return series if columns is None else series.select(columns)
    if str(source).startswith(_BUNDLED):
        return _read_bundled(str(source)[len(_BUNDLED) :], columns)
    return _read_csv(Path(source), columns)


def _read_csv(path: Path, columns: Sequence[str] | None) -> Series:
    with path.open(newline='', encoding='utf-8-sig') as file:
        try:
            rows = list(csv.reader(file))
        except UnicodeDecodeError as error:
            raise ValueError(f'series: {path} is no UTF-8 text ({error})') from error
    if not rows:
        raise ValueError(f'series: {path} is empty, expected a line of column names')
    names = tuple(name.strip() for name in rows[0])
    columns = names if columns is None else tuple(columns)
    positions = _positions(names, columns, path)
    values = np.empty((len(rows) - 1, len(columns)))
    for i, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise ValueError(
                f'series: line {i + 2} of {path} has {len(row)} cells, expected '
                f'{len(names)}'
            )
        for j, position in enumerate(positions):
            try:
                values[i, j] = float(row[position])
            except ValueError as error:
                raise ValueError(
                    f'series: line {i + 2} of {path} holds {row[position]!r} in column '
                    f'{columns[j]!r}, expected a number. Name the columns to use with '
                    'columns=[...]'
                ) from error
    return Series(values, columns)


def _read_bundled(name: str, columns: Sequence[str] | None) -> Series:
    try:
        from statsmodels import datasets
    except ImportError as error:
        raise ImportError(
            f"series: '{_BUNDLED}{name}' needs statsmodels ({error}); install the "
            "extra: pip install 'daal_mmdet[forecasting]'"
        ) from error
    module = _module(name) if name.isidentifier() else None
    if not hasattr(module, 'load_pandas'):
        known = sorted(n for n in dir(datasets) if hasattr(_module(n), 'load_pandas'))
        raise ValueError(
            f'series: statsmodels bundles no data set {name!r}, expected one of {known}'
        )
    table = module.load_pandas().data
    columns = tuple(table.columns) if columns is None else tuple(columns)
    _positions(tuple(table.columns), columns, f'{_BUNDLED}{name}')
    values = np.empty((len(table), len(columns)))
    for j, column in enumerate(columns):
        try:
            values[:, j] = table[column].to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'series: column {column!r} of {_BUNDLED}{name} does not hold numbers '
                f'({error}). Name the columns to use with columns=[...]'
            ) from error
    return Series(values, columns)


def _module(name: str) -> object:
    try:
        return importlib.import_module(f'statsmodels.datasets.{name}')
    except ImportError:
        # dir() of the package lists helper functions too.
        return None


def _positions(
    names: tuple[str, ...], wanted: Sequence[str], source: object
) -> list[int]:
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise ValueError(
            f'columns: expected one or more of {names} of {source}, got {list(wanted)}'
        )
    for name in wanted:
        if names.count(name) > 1:
            raise ValueError(
                f'columns: {source} has {names.count(name)} columns named {name!r}, '
                'expected one'
            )
    return [names.index(name) for name in wanted]
