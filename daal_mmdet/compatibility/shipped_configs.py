"""The configs that the installed mmdet ships, and a choice among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import get_installed_path

__all__ = [
    'ShippedConfig',
    'choose_configs',
    'config_files',
    'config_folder',
    'families',
    'load_model',
    'walk',
]

# In names of configs with large backbones; others of their family are cheaper.
_LARGE = ('101', '152', 'hourglass', 'swin', 'r2', '-l', '_l', '-x', '_x', 'w32', 'w40')
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


def walk(node: object) -> Iterator[tuple[dict, str]]:
    """All (dict, key) within nested dicts and lists, in their order."""
    if isinstance(node, Mapping):
        for key in list(node):
            yield node, str(key)
            yield from walk(node[key])
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
    on_read: Callable[[str], None] = lambda name: None,
) -> list[ShippedConfig]:
    """Choose the configs to check.

    Args:
        wanted: Families.
        every: All configs; else one of each family, a cheap one, and one for each type
            of head that these leave out.
        on_read: Called with the name of each config that was read.

    Returns:
        The configs, those of a family together. A family without a readable model has
        one entry with its problem.

    Raises:
        ValueError: If there is no such family.
    """
    unknown = sorted(set(wanted) - set(families()))
    if unknown:
        raise ValueError(f'families: expected some of {families()}, got {unknown}')
    found = {family: _read_family(family, on_read) for family in wanted}
    if every:
        return [config for configs in found.values() for config in configs]
    chosen = [configs[0] for configs in found.values() if configs]
    covered = {head for config in chosen for head in config.heads()}
    for configs in found.values():
        for config in configs[1:]:
            if not config.heads() <= covered:
                covered |= config.heads()
                chosen.append(config)
    order = list(wanted)
    return sorted(chosen, key=lambda config: order.index(config.family))


def _read_family(family: str, on_read: Callable[[str], None]) -> list[ShippedConfig]:
    """Configs of a family, cheap ones first, those without a model left out."""
    configs, problems = [], []
    for path in config_files(family):
        name = path.relative_to(config_folder()).as_posix()
        try:
            configs.append(ShippedConfig(name, load_model(name)))
        except KeyError:
            # An ingredient for other configs.
            continue
        except Exception as error:  # noqa: BLE001 - a config may import anything
            first = str(error).splitlines()[0]
            problems.append(ShippedConfig(name, {}, f'{type(error).__name__}: {first}'))
        finally:
            on_read(name)
    return configs or problems[:1]


def _cost(path: Path) -> tuple[int, int, str]:
    return sum(part in path.stem for part in _LARGE), len(path.stem), path.stem
