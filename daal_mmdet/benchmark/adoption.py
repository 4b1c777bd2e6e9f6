"""Runs that ``tools/train.py`` made, taken into a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from daal_mmdet.benchmark.checkpoints import latest_whole_checkpoint
from daal_mmdet.benchmark.evaluation_record import require_class_ap
from daal_mmdet.benchmark.matrix import ADOPTED, MatrixFolder
from daal_mmdet.benchmark.spec import PlannedRun
from daal_mmdet.config_hash import config_hash, differing_keys

__all__ = ['adopt_run']


def adopt_run(
    work_dir: Path, plan: Sequence[PlannedRun], folder: MatrixFolder
) -> PlannedRun:
    """Let a finished training stand for the run of a plan that it equals.

    The benchmark then finds its checkpoint and its logs, so that only the evaluation is
    left to do. Nothing is copied or changed in ``work_dir``.

    Args:
        work_dir: Work dir of ``tools/train.py``, with the last checkpoint.
        plan: The runs of a spec.
        folder: Where the benchmark's runs lie.

    Returns:
        The run of the plan.

    Raises:
        FileNotFoundError: If there is no config or no checkpoint.
        ValueError: If no run of the plan has its config and its seed, or the training
            is not finished.
    """
    configs = sorted(work_dir.glob('*.py'))
    if len(configs) != 1:
        raise FileNotFoundError(
            f'{work_dir}: expected one config (*.py), got {len(configs)}'
        )
    config = _as_planned(Config.fromfile(configs[0]), work_dir)
    seed = (config.get('randomness') or {}).get('seed')
    same_seed = [run for run in plan if run.seed == seed]
    if not same_seed:
        raise ValueError(
            f'{work_dir}: its seed is {seed}, the spec has '
            f'{sorted({run.seed for run in plan})}'
        )
    run = next((r for r in same_seed if r.hash == config_hash(config)), None)
    if run is None:
        closest = min(same_seed, key=lambda r: len(differing_keys(r.config, config)))
        raise ValueError(
            f'{work_dir}: no variant has its config; {closest.variant!r} is closest '
            f'and differs in {differing_keys(closest.config, config)[:10]}'
        )
    checkpoint = latest_whole_checkpoint(work_dir)
    if checkpoint is None:
        raise FileNotFoundError(f'{work_dir}: there is no epoch_*.pth or iter_*.pth')
    key, length = run.length
    loaded = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
    meta = loaded['meta']
    reached = meta['epoch' if key == 'max_epochs' else 'iter']
    if reached != length:
        raise ValueError(
            f'{work_dir}: expected a finished training of {key}={length}, got '
            f'{checkpoint.name} after {reached}'
        )
    target = folder.run_folder(run)
    target.mkdir(parents=True, exist_ok=True)
    for path in (checkpoint, *(p.parent for p in work_dir.glob('*/vis_data'))):
        link = target / path.name
        if link.is_symlink() and not link.exists():
            # Of an earlier adoption, whose training lies elsewhere now.
            link.unlink()
        if not link.exists():
            link.symlink_to(path.resolve())
    (target / ADOPTED).write_text(str(work_dir.resolve()), encoding='utf-8')
    return run


def _as_planned(config: Config, work_dir: Path) -> Config:
    """The config with what a plan adds to it, and without what a resume did."""
    for part in ('val', 'test'):
        try:
            require_class_ap(config, part)
        except ValueError as error:
            raise ValueError(f'{work_dir}: {error}') from error
    if config.get('resume'):
        # Resumed from a checkpoint of its own; where it began is logged.
        for path in sorted(work_dir.glob('*/vis_data/config.py'), reverse=True):
            start = Config.fromfile(path)
            if not start.get('resume'):
                config.load_from = start.get('load_from')
                break
    return config
