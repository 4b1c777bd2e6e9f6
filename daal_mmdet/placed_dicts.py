"""The dicts of a config, and where they stand in it."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ['placed_dicts']


def placed_dicts(value: object, place: str) -> Iterator[tuple[str, dict]]:
    """Each dict of a type in ``value``, outer ones first, and its key.

    Args:
        value: Nested dicts, lists and tuples; anything else holds none.
        place: Key of ``value`` itself, such as ``'model'``.

    Yields:
        ``('model.bbox_head[0].loss_cls', {'type': ...})``
    """
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from placed_dicts(item, f'{place}[{index}]')
    elif isinstance(value, dict):
        if 'type' in value:
            yield place, value
        for name, item in value.items():
            yield from placed_dicts(item, f'{place}.{name}')
