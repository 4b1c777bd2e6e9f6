"""Training for longer or shorter than a config says."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config

from daal_mmdet.losses.validation import check_number

__all__ = ['set_schedule_length', 'schedule_length']


def schedule_length(config: Config) -> tuple[str, int]:
    """Which key of ``train_cfg`` holds the length of the training, and the length.

    Raises:
        ValueError: If there is neither ``max_epochs`` nor ``max_iters``.
    """
    for key in ('max_epochs', 'max_iters'):
        if key in config.train_cfg:
            return key, int(config.train_cfg[key])
    raise ValueError(
        f'train_cfg: expected max_epochs or max_iters, got {dict(config.train_cfg)}'
    )


def set_schedule_length(config: Config, length: int) -> None:
    """Train for ``length`` epochs, or iterations where the config counts those.

    In the learning rate's schedule, what ended with the training still does; a warm-up
    keeps its length.

    Args:
        config: Changed in place.
        length: > 0.

    Raises:
        TypeError, ValueError: If the length is no such number, or the schedule has
            another landmark at or after it, which only the user can place.
    """
    check_number('schedule', length, low=1, integer=True)
    key, old = schedule_length(config)
    config.train_cfg[key] = length
    for where, scheduler in _schedulers(config.get('param_scheduler')):
        by_epoch = scheduler.get('by_epoch', True)
        if by_epoch != (key == 'max_epochs'):
            continue
        for name in ('end', 'T_max', 'total_iters'):
            if scheduler.get(name) == old:
                scheduler[name] = length
        for name in ('begin', 'end', 'T_max', 'milestones'):
            marks = scheduler.get(name)
            marks = marks if isinstance(marks, list | tuple) else [marks]
            late = [mark for mark in marks if mark is not None and mark > length]
            if late or (name == 'milestones' and marks != [None] and length != old):
                raise ValueError(
                    f'schedule: {length} does not fit {where}.{name}='
                    f'{scheduler[name]}, made for {key}={old}; say in overrides what '
                    'it should be'
                )


def _schedulers(
    value: object, where: str = 'param_scheduler'
) -> Iterator[tuple[str, dict]]:
    """Each with its place; MMEngine takes one, a list, or either by optimizer."""
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _schedulers(item, f'{where}[{index}]')
    elif isinstance(value, dict) and 'type' in value:
        yield where, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _schedulers(item, f'{where}.{name}')
