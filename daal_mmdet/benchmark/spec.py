"""What a benchmark compares: variants of one config, seeds and metrics."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from daal_mmdet.benchmark.evaluation_record import require_class_ap, require_metrics
from daal_mmdet.benchmark.schedule import schedule_length, set_schedule_length
from daal_mmdet.config_hash import config_hash, follows_validation
from daal_mmdet.placed_dicts import PRETRAINED, bare_type, placed_dicts
from daal_mmdet.validation import check_number

__all__ = ['BenchmarkSpec', 'PlannedRun', 'load_spec']

IMPORTS = ('daal_mmdet', 'daal_mmdet.benchmark')


# Compared by identity, because a Config has no hash.
@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One cell of the matrix.

    Attributes:
        data: Name of the data set.
        variant: Name of the variant.
        seed: Seed of weights, data order and augmentation.
        config: The whole training config; it holds the seed.
        hash: :func:`config_hash` of it, the same for all seeds of a variant.
    """

    data: str
    variant: str
    seed: int
    config: Config
    hash: str

    @property
    def length(self) -> tuple[str, int]:
        """``'max_epochs'`` or ``'max_iters'``, and how many."""
        return schedule_length(self.config)

    @property
    def start(self) -> Path | None:
        """Weights of the detector, or else of the backbone; None from scratch."""
        if self.config.get('load_from'):
            return Path(self.config.load_from)
        backbone = self.config.model.get('backbone') or {}
        for _, start in placed_dicts(backbone.get('init_cfg'), 'init_cfg'):
            if bare_type(start) in PRETRAINED:
                return Path(start['checkpoint'])
        return None

    @property
    def setting(self) -> str:
        """Schedule and start of the training, in words."""
        key, length = self.length
        words = 'from scratch'
        if self.start is not None:
            whole = self.config.get('load_from')
            words = f'{"from" if whole else "backbone"} {self.start.name}'
        return f'{length} {key.removeprefix("max_")}, {words}'

    @property
    def identity(self) -> dict:
        """What its record begins with."""
        return dict(
            data=self.data,
            variant=self.variant,
            seed=self.seed,
            config=self.hash,
            setting=self.setting,
        )

    @property
    def folder(self) -> str:
        """Name of its folder, another one for another config."""
        words = re.findall(r'\w+', f'{self.data} {self.variant}')
        return f'{"-".join(words)}_seed{self.seed}_{self.hash[:8]}'

    def __str__(self) -> str:
        return f'{self.variant}, seed {self.seed}'


@dataclass(frozen=True)
class BenchmarkSpec:
    """A matrix of variants and seeds on one data set.

    In the file (Python or YAML, read by MMEngine, so ``_base_`` works) each attribute
    is a name of its own.

    Attributes:
        data: Name of the data set in records and tables.
        base_config: Training config of all variants, relative to the spec's folder.
        variants: Changes to the base config by the variant's name, merged as MMEngine
            merges configs: nested dicts or dotted keys, ``_delete_=True`` replaces a
            dict as a whole.
        seeds: Seeds of each variant.
        baseline: The variant that the others are compared with.
        overrides: Changes for all variants, merged before theirs.
        schedule: Epochs, or iterations where the config counts those; None for the
            config's.
        metrics: Columns of the table: keys of the evaluation without ``bbox_``
            (``mAP_75``), names of ``class_means``, ``class_AP`` for a column a class.
        compare: Those whose difference to the baseline is shown, and drawn.
        class_means: Means of the AP of named classes, by name.
        val_curve: Whether to validate during training too, as the config says, for the
            figure of AP over the training. The trained weights are the same; a config
            whose learning rate or end follows the validation always validates.
    """

    data: str
    base_config: str
    variants: Mapping[str, Mapping]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    baseline: str = 'FocalLoss'
    overrides: Mapping = field(default_factory=dict)
    schedule: int | None = None
    metrics: tuple[str, ...] = ('mAP', 'mAP_50', 'mAP_75', 'mAP_few', 'class_AP')
    compare: tuple[str, ...] = ('mAP', 'mAP_few')
    class_means: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    val_curve: bool = False

    def __post_init__(self) -> None:
        if not self.variants:
            raise ValueError('variants: expected at least one, got none')
        if self.baseline not in self.variants:
            raise ValueError(
                f'baseline: expected one of {list(self.variants)}, got '
                f'{self.baseline!r}'
            )
        if not self.seeds:
            raise ValueError('seeds: expected at least one, got none')
        for seed in self.seeds:
            check_number('seeds', seed, low=0, integer=True)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f'seeds: expected each once, got {list(self.seeds)}')

    def plan(self) -> list[PlannedRun]:
        """All runs, seed by seed, so that a stopped benchmark has whole pairs.

        Raises:
            FileNotFoundError: If there is no such base config.
            ValueError: If two variants are the same training, the schedule does not
                fit, an evaluator does not give the AP of boxes, or none gives one of
                ``metrics`` or ``compare``.
        """
        if not Path(self.base_config).is_file():
            raise FileNotFoundError(
                f'base_config: there is no file {self.base_config!r}'
            )
        base = Config.fromfile(self.base_config)
        configs = {name: self._build(base, name) for name in self.variants}
        # Reads the data files, which may be large: once a variant, not once a seed.
        hashes = {name: config_hash(config) for name, config in configs.items()}
        names: dict[str, str] = {}
        for name, value in hashes.items():
            twin = names.setdefault(value, name)
            if twin != name:
                raise ValueError(
                    f'variants: {twin!r} and {name!r} are the same training'
                )
        plan = []
        for seed in self.seeds:
            for name, config in configs.items():
                config = copy.deepcopy(config)
                config.randomness.seed = seed
                plan.append(PlannedRun(self.data, name, seed, config, hashes[name]))
        return plan

    def _build(self, base: Config, variant: str) -> Config:
        config = copy.deepcopy(base)
        for changes in (self.overrides, self.variants[variant]):
            # Merging takes _delete_ out of the changes.
            config.merge_from_dict(copy.deepcopy(dict(changes)))
        if self.schedule is not None:
            set_schedule_length(config, self.schedule)
        if not self.val_curve and not follows_validation(config):
            config.train_cfg.val_begin = schedule_length(config)[1] + 1
        for part in ('val', 'test'):
            require_class_ap(config, part)
        for key, names in (('metrics', self.metrics), ('compare', self.compare)):
            own = ('class_AP', *self.class_means)
            evaluated = [
                name
                for name in names
                if name not in own and not name.startswith('AP of ')
            ]
            require_metrics(config, key, evaluated)
        config.setdefault('randomness', {})
        imports = config.get('custom_imports') or {'imports': []}
        modules = imports['imports']
        modules = [modules] if isinstance(modules, str) else list(modules)
        modules += [name for name in IMPORTS if name not in modules]
        config.custom_imports = {**imports, 'imports': modules}
        return config


def load_spec(path: Path) -> BenchmarkSpec:
    """Read a spec.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError, ValueError: If a name is missing, unknown or not as
            :class:`BenchmarkSpec` says.
    """
    if not path.is_file():
        raise FileNotFoundError(f'spec: there is no file {str(path)!r}')
    values = Config.fromfile(path, lazy_import=False)._cfg_dict.to_dict()
    allowed = BenchmarkSpec.__dataclass_fields__
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ValueError(f'{path}: expected names among {list(allowed)}, got {unknown}')
    for name in ('data', 'base_config', 'variants'):
        if name not in values:
            raise ValueError(f'{path}: {name} is missing')
    for name in ('seeds', 'metrics', 'compare'):
        if name in values:
            if not isinstance(values[name], list | tuple):
                raise TypeError(f'{name}: expected a list, got {values[name]!r}')
            values[name] = tuple(values[name])
    values['base_config'] = str(path.parent / values['base_config'])
    return BenchmarkSpec(**values)
