"""The configs that the installed mmdet ships, and a choice among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import get_installed_path

__all__ = [
    'CLASS_LOSSES',
    'ShippedConfig',
    'choose_configs',
    'config_files',
    'config_folder',
    'families',
    'load_model',
    'next_config',
    'walk',
]

CLASS_LOSSES = (
    'loss_cls',
    'initial_loss_cls',
    'loss_heatmap',
    'loss_center_heatmap',
    'cls_loss',
)
# In names of configs with large backbones; others of their family are cheaper.
_LARGE = ('101', '152', 'hourglass', 'swin', 'r2', '-l', '_l', '-x', '_x', 'w32', 'w40')
_HEAD_TYPE = re.compile(r"type='(\w*Head\w*)'")
# Folders that hold ingredients for others.
_NO_FAMILIES = {'_base_', 'common'}


@dataclass(frozen=True)
class ShippedConfig:
    """A config of mmdet.

    Attributes:
        name: Path below mmdet's folder of configs, as in ``_base_ = 'mmdet::<name>'``.
        model: Its model, as plain dicts; empty if it could not be read.
        problem: Why it could not be read; '' if it could.
    """

    name: str
    model: Mapping
    problem: str = ''

    @property
    def family(self) -> str:
        """Folder of the config."""
        return self.name.split('/')[0]

    def heads(self) -> set[str]:
        """Types of the modules that take a loss from the config."""
        return {
            str(node.get('type'))
            for node, key in walk(self.model)
            if key.startswith('loss') and isinstance(node[key], Mapping)
        }

    def has_class_loss(self) -> bool:
        """Whether it configures a classification loss."""
        return any(
            key in CLASS_LOSSES and isinstance(node[key], Mapping)
            for node, key in walk(self.model)
        )


def walk(node: object) -> Iterator[tuple[dict, str]]:
    """All (dict, key) within nested dicts and lists; keys may be changed or deleted."""
    if isinstance(node, Mapping):
        for key in list(node):
            yield node, str(key)
            yield from walk(node.get(key))
    elif isinstance(node, list | tuple):
        for item in node:
            yield from walk(item)


def config_folder() -> Path:
    """Folder of the configs in the installed mmdet."""
    return Path(get_installed_path('mmdet')) / '.mim' / 'configs'


def families() -> list[str]:
    """Names of the model families, one a folder."""
    return sorted(
        path.name
        for path in config_folder().iterdir()
        if path.is_dir() and path.name not in _NO_FAMILIES
    )


def config_files(family: str) -> list[Path]:
    """Files of a family, cheap models first."""
    return sorted((config_folder() / family).rglob('*.py'), key=_cost)


def load_model(name: str) -> dict:
    """Model of a config as plain dicts.

    Raises:
        KeyError: If the config has none.
    """
    return Config.fromfile(config_folder() / name)._cfg_dict.to_dict()['model']


def choose_configs(
    wanted: Sequence[str],
    every: bool = False,
    on_file: Callable[[], object] = lambda: None,
) -> list[ShippedConfig]:
    """Choose the configs to check.

    Args:
        wanted: Families.
        every: All configs; else one of each family, a cheap one with a classification
            loss if it has any, and one for each type of head that these leave out.
        on_file: Called for each file that was looked at.

    Returns:
        The configs, those of a family together. A family without a readable model has
        one entry with its problem.

    Raises:
        ValueError: If there is no such family.
    """
    unknown = sorted(set(wanted) - set(families()))
    if unknown:
        raise ValueError(f'families: expected some of {families()}, got {unknown}')
    chosen: dict[str, list[ShippedConfig]] = {}
    for family in wanted:
        first = _first_with_loss(config_files(family))
        chosen[family] = [] if first is None else [first]
    covered = {
        head for configs in chosen.values() for c in configs for head in c.heads()
    }
    for family, configs in chosen.items():
        names = {config.name for config in configs}
        for path in config_files(family):
            on_file()
            if _name(path) in names:
                continue
            # Reading a config runs Python, so look for new heads in its text first.
            if every or set(_HEAD_TYPE.findall(path.read_text())) - covered:
                config = _read(path)
                if config is not None and (every or config.heads() - covered):
                    covered |= config.heads()
                    configs.append(config)
    return [config for configs in chosen.values() for config in configs]


def next_config(
    family: str, tried: Collection[str], heads: Collection[str] = ()
) -> ShippedConfig | None:
    """The cheapest readable config of a family that was not tried.

    Args:
        family: The family.
        tried: Names of configs.
        heads: Types of heads that it must have.

    Returns:
        The config; None if there is none.
    """
    for path in config_files(family):
        config = None if _name(path) in tried else _read(path)
        if config is None or config.problem:
            continue
        if config.heads() >= set(heads):
            return config
    return None


def _first_with_loss(files: Sequence[Path]) -> ShippedConfig | None:
    """The first with a classification loss, else with a model, else with a problem."""
    found: dict[str, ShippedConfig] = {}
    for path in files:
        config = _read(path)
        if config is None:
            continue
        if config.has_class_loss():
            return config
        found.setdefault('problem' if config.problem else 'model', config)
    return found.get('model', found.get('problem'))


def _name(path: Path) -> str:
    return path.relative_to(config_folder()).as_posix()


def _read(path: Path) -> ShippedConfig | None:
    """Read a config; None for one without a model, an ingredient for others."""
    name = _name(path)
    try:
        return ShippedConfig(name, load_model(name))
    except KeyError:
        return None
    except Exception as error:  # noqa: BLE001 - a config may import anything
        # mmengine puts all of sys.path in front of the name of a missing module.
        cause: BaseException | None = error
        while cause is not None:
            first, cause = cause, cause.__cause__ or cause.__context__
        problem = str(first).splitlines()[0]
        return ShippedConfig(name, {}, f'{type(first).__name__}: {problem}')


def _cost(path: Path) -> tuple[int, int, str]:
    return sum(part in path.stem for part in _LARGE), len(path.stem), path.stem
