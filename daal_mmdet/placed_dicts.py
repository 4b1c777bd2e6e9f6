"""The dicts of a config, and where they stand in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmengine.registry import Registry

__all__ = ['PRETRAINED', 'bare_type', 'built_class', 'placed_dicts']

# The initialiser that loads weights: its name in the registry, and its class.
PRETRAINED = ('Pretrained', 'PretrainedInit')


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


def bare_type(item: Mapping) -> str:
    """Name of what a dict of a config builds, without module or scope.

    ``type`` is a string, or the class itself, as in configs of the new style.
    """
    kind = item.get('type') or ''
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]


def built_class(item: Mapping, registry: Registry) -> object:
    """What a registry builds from a dict of a config; None if it knows no such name."""
    kind = item.get('type')
    return registry.get(kind) if isinstance(kind, str) else kind
