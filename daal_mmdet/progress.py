"""A progress bar that stays readable when its output goes to a file."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm

__all__ = ['progress_bar']

_SECONDS_BETWEEN_LINES = 15.0


class _LineBar(tqdm):
    """Prints lines, and few of them, instead of overwriting one line."""

    _shown_at: float | None = None

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        now = self._time()
        # tqdm also refreshes for each message and each change of the description.
        if self._shown_at is None or now - self._shown_at >= self.mininterval:
            self._shown_at = now
            self._print(msg)
        return True

    def clear(self, nolock: bool = False) -> None:
        """Nothing to clear: lines stay."""

    def close(self) -> None:
        # tqdm's own close moves the cursor, which means nothing in a file.
        if not self.disable:
            self._print()
            self.disable = True
            self._decr_instances(self)

    def _print(self, text: str | None = None) -> None:
        self.fp.write((text or str(self)) + '\n')
        self.fp.flush()


def progress_bar(
    *,
    total: float,
    desc: str,
    unit: str = 'it',
    initial: float = 0,
    disable: bool = False,
    bar_format: str | None = None,
    file: TextIO | None = None,
) -> tqdm:
    """A tqdm bar on a terminal; elsewhere one line every 15 seconds and at the end.

    Args:
        total: Number of units of the whole job.
        desc: Name of the job, printed before the bar.
        unit: Name of a unit.
        initial: Units that are done already; the time left is told by the others.
        disable: Show nothing.
        bar_format: Layout in tqdm's notation; None for tqdm's own.
        file: Where to print; None for the standard error.
    """
    stream = file if file is not None else sys.stderr
    common = dict(
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        # The time left by the mean speed: an evaluation within a training is no trend.
        smoothing=0,
        disable=disable,
        bar_format=bar_format,
        file=stream,
    )
    if stream.isatty():
        return tqdm(**common, dynamic_ncols=True)
    # Only the clock decides: no number of units is too small, fractions included.
    return _LineBar(
        **common, ncols=110, ascii=True, miniters=0, mininterval=_SECONDS_BETWEEN_LINES
    )
