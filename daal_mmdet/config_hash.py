"""A name for what a training config computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config, ConfigDict

from daal_mmdet.code_digest import code_digest
from daal_mmdet.placed_dicts import bare_type, placed_dicts

__all__ = ['config_hash', 'differing_keys', 'file_digest', 'follows_validation']

# What Runner.from_cfg takes, without what has no influence on the trained model:
# loggers, folders, the launcher. Other names in a config only serve these.
_KEYS = (
    'runner_type',
    'default_scope',
    'model',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'optim_wrapper',
    'auto_scale_lr',
    'param_scheduler',
    'val_evaluator',
    'test_evaluator',
    'default_hooks',
    'custom_hooks',
    'randomness',
    'load_from',
    'compile',
)
# Saving, logging and, where nothing follows it, validating meanwhile leave a seeded
# training as it is.
_WITHOUT_INFLUENCE = {
    'default_hooks': ('checkpoint', 'logger', 'visualization', 'timer'),
    'train_cfg': ('val_interval', 'val_begin'),
    'randomness': ('seed',),
}


def config_hash(config: Config) -> str:
    """Hash of everything in a config that decides what a run computes, but the seed.

    Where data and weights lie does not count, but what they hold does: each string
    that names a file stands for the file's contents. Checkpoints, logs and validations
    on the way do not count either, unless the training follows its validations. A model
    or hook of this package stands for its code too, because its defaults are there.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps(_relevant(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differing_keys(one: Config, other: Config) -> list[str]:
    """Dotted names of the settings that make two configs' hashes differ."""
    flat, other_flat = _flatten(_relevant(one)), _flatten(_relevant(other))
    keys = {**flat, **other_flat}
    return [key for key in keys if flat.get(key) != other_flat.get(key)]


def follows_validation(config: Config) -> bool:
    """Whether a training takes another course by what its validations measure.

    So do a learning rate that drops on a plateau, and a hook that stops early.
    """
    schedulers = placed_dicts(config.get('param_scheduler'), 'param_scheduler')
    hooks = placed_dicts(config.get('custom_hooks'), 'custom_hooks')
    # mmengine's plateau schedulers have a default for what they monitor.
    return any(
        bare_type(part).startswith('ReduceOnPlateau') or 'monitor' in part
        for _, part in (*schedulers, *hooks)
    )


def file_digest(path: Path) -> str:
    """Hash of a file's contents."""
    return 'sha256:' + hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _relevant(config: Config) -> dict:
    plain = ConfigDict.to_dict(config._cfg_dict)
    kept = {}
    for key in _KEYS:
        value = plain.get(key)
        if isinstance(value, dict):
            dropped = _WITHOUT_INFLUENCE.get(key, ())
            if key == 'train_cfg' and follows_validation(config):
                dropped = ()
            value = {k: v for k, v in value.items() if k not in dropped}
        # As good as not there.
        if value is not None:
            kept[key] = _without_paths(value)
    return kept


def _without_paths(value: object, root: str = '') -> object:
    if isinstance(value, Mapping):
        root = value.get('data_root') or root
        plain = {
            str(key): _without_paths(item, root)
            for key, item in value.items()
            if key != 'data_root'
        }
        code = _code_of(value.get('type'))
        return plain if code is None else plain | {'code of type': code}
    if isinstance(value, list | tuple):
        return [_without_paths(item, root) for item in value]
    if isinstance(value, str):
        for path in (Path(root, value), Path(value)):
            if path.is_file():
                return file_digest(path)
        # A folder given in full is a place too; a relative one names a part.
        return Path(value).name if Path(value).is_absolute() else value
    return value


def _code_of(type_name: object) -> str | None:
    """Digest of the code of one of this package's models and hooks."""
    for registry in (MODELS, HOOKS):
        found = registry.module_dict.get(str(type_name).split('.')[-1])
        if found is not None and found.__module__.split('.')[0] == 'daal_mmdet':
            return code_digest(found.__module__)
    return None


def _flatten(value: object, prefix: str = '') -> dict[str, object]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {prefix: value}
    flat: dict[str, object] = {}
    for key, item in items:
        flat |= _flatten(item, f'{prefix}.{key}' if prefix else str(key))
    return flat
