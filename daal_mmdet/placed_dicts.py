"""The dicts of a config, and where they stand in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmengine.registry import Registry

__all__ = ['PRETRAINED', 'bare_type', 'built_class', 'placed_dicts', 'placed_metrics']

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


def placed_metrics(config: Mapping, part: str) -> Iterator[tuple[str, dict]]:
    """Each metric of a loop, and its key.

    Args:
        config: Config of a run, whose evaluator may be a metric, a list of them, or an
            ``Evaluator`` of either; none yields nothing.
        part: ``'val'`` or ``'test'``; that of ``'train'`` has none.

    Yields:
        ``('val_evaluator.metrics[0]', {'type': 'CocoMetric', ...})``
    """
    place = f'{part}_evaluator'
    metrics = config.get(place) or []
    if isinstance(metrics, dict) and 'metrics' in metrics:
        place, metrics = f'{place}.metrics', metrics['metrics']
    if isinstance(metrics, dict):
        yield place, metrics
    else:
        for index, metric in enumerate(metrics):
            yield f'{place}[{index}]', metric


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
