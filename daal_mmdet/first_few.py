"""Long lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ['first_few']


def first_few(names: Sequence[str], most: int = 3, separator: str = ', ') -> str:
    """The first ``most`` names, and how many there are beside them.

    >>> first_few(['a', 'b', 'c', 'd', 'e'])
    'a, b, c and 2 more'
    """
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return separator.join(names[:most]) + more
