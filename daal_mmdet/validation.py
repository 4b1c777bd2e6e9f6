"""Checks of options; each message names the key, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Real

__all__ = ['REDUCTIONS', 'check_choice', 'check_flag', 'check_number']

# Of a loss, as in mmdet.
REDUCTIONS = ('none', 'mean', 'sum')


def check_choice(key: str, value: object, allowed: Collection[object]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f'{key}: expected one of {tuple(allowed)}, got {value!r}')


def check_flag(key: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f'{key}: expected True or False, got {value!r}')


def check_number(
    key: str,
    value: object,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    integer: bool = False,
) -> None:
    """Check a finite number against low <= value <= high and value > above.

    Raises:
        TypeError: If ``value`` is no number (a bool is none), or no ``int`` where
            ``integer``.
        ValueError: If it lies outside the limits or is not finite.
    """
    kind = int if integer else Real
    if isinstance(value, bool) or not isinstance(value, kind):
        noun = 'an integer' if integer else 'a number'
        raise TypeError(f'{key}: expected {noun}, got {value!r}')
    limits = []
    if above is not None:
        limits.append(f'> {above}')
    if low is not None:
        limits.append(f'>= {low}')
    if high is not None:
        limits.append(f'<= {high}')
    number = float(value)
    inside = (
        abs(number) != float('inf')
        and number == number
        and (above is None or number > above)
        and (low is None or number >= low)
        and (high is None or number <= high)
    )
    if not inside:
        wanted = f'a value {" and ".join(limits)}' if limits else 'a finite number'
        raise ValueError(f'{key}: expected {wanted}, got {value!r}')
