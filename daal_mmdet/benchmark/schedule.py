"""Training for longer or shorter than a config says."""

from __future__ import annotations

from mmengine.config import Config

from daal_mmdet.placed_dicts import placed_dicts
from daal_mmdet.validation import check_number

__all__ = ['schedule_length', 'set_schedule_length']

_SPANS = ('T_max', 'total_steps')
_LANDMARKS = ('begin', 'end', *_SPANS, 'milestones', 'step_size', 'periods')


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
    from the start, of half the training at most, keeps its length.

    Args:
        config: Changed in place.
        length: > 0.

    Raises:
        TypeError, ValueError: If the length is no such number, or the schedule has
            another landmark, which only the user can place.
    """
    check_number('schedule', length, low=1, integer=True)
    key, old = schedule_length(config)
    if length == old:
        return
    config.train_cfg[key] = length
    schedulers = [
        (where, scheduler)
        # One, a list, or either by optimizer.
        for where, scheduler in placed_dicts(
            config.get('param_scheduler'), 'param_scheduler'
        )
        if scheduler.get('by_epoch', True) == (key == 'max_epochs')
    ]
    warm_ups = [
        scheduler['end']
        for _, scheduler in schedulers
        if not scheduler.get('begin') and scheduler.get('end', old) <= old / 2
    ]
    fitting = [end for end in warm_ups if end < length]
    for where, scheduler in schedulers:
        begin, end = scheduler.get('begin', 0), scheduler.get('end', old)
        for name in _LANDMARKS:
            value = scheduler.get(name)
            if name in ('begin', 'end'):
                fits = value in (None, 0, old, *fitting)
                moves = value == old
            else:
                fits = value is None or end in fitting
                moves = name in _SPANS and end == old and value in (old, old - begin)
            if moves:
                scheduler[name] = length - (old - value)
            elif not fits:
                raise ValueError(
                    f'schedule: {length} does not fit {where}.{name}={value}, made for '
                    f'{key}={old}; leave schedule out, and set train_cfg.{key} and '
                    'param_scheduler in overrides'
                )
