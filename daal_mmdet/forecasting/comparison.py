"""Trainings of a forecaster with several losses, kept in a file that can be resumed."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner, load_checkpoint

from daal_mmdet.config_hash import config_hash
from daal_mmdet.forecasting.series_windows import SPLITS
from daal_mmdet.run_records import append_record, last_of_each, read_records
from daal_mmdet.validation import check_choice

__all__ = [
    'TARGET_NOISE',
    'latest_records',
    'require_one_task',
    'run_comparison',
    'train_once',
]

_RECORDS = 'runs.jsonl'

# What happens to the training targets, in standard deviations of the train part,
# whatever a config says.
TARGET_NOISE: dict[str, dict | None] = {
    'clean': None,
    'noisy': dict(std=0.5),
    'outliers': dict(std=3.0, fraction=0.1),
}


# What errors of forecasts have to share, to be compared.
_TASK = ('series', 'columns', 'fractions', 'horizon', 'naive_lag')


def require_one_task(configs: Mapping[str, Config]) -> None:
    """Make sure that all configs are tested on the same forecasts.

    Args:
        configs: Training config by the name of its loss.

    Raises:
        ValueError: If the test data sets of two differ, with the key and both values.
    """
    (first, config), *others = configs.items()
    dataset = config.test_dataloader.dataset
    for name, other in others:
        for key in _TASK:
            value, expected = other.test_dataloader.dataset.get(key), dataset.get(key)
            if value != expected:
                raise ValueError(
                    f'test_dataloader.dataset.{key}: {name} has {value!r} and {first} '
                    f'{expected!r}; only errors on the same forecasts can be compared'
                )


def run_comparison(
    configs: Mapping[str, Config],
    conditions: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    split: str = 'test',
    on_done: Callable[[dict], None] = lambda record: None,
) -> list[dict]:
    """Train every config under every condition with every seed.

    A finished run is one line of ``folder/runs.jsonl``. Called again, it does only what
    is missing: a line counts if its configuration is the same to the letter, and so is
    the code of its model and loss (:func:`~daal_mmdet.config_hash.config_hash`).

    Args:
        configs: Training config by the name of its loss, of one task, see
            :func:`require_one_task`.
        conditions: Keys of :data:`TARGET_NOISE`.
        seeds: Seeds of weights, order of the data, and noise.
        folder: Where results and checkpoints go.
        split: Part of the series to report, 'test' or, to choose hyper-parameters,
            'val'.
        on_done: Called with each record, new or found.

    Returns:
        A record for each run: its key, the metrics, and the path of the checkpoint with
        the best MSE on the validation part, relative to ``folder``.

    Raises:
        ValueError: If a condition or the split is unknown.
        FloatingPointError: If a training diverged before its first validation. The
            runs before it are kept.
    """
    check_choice('split', split, SPLITS)
    for condition in conditions:
        check_choice('conditions', condition, TARGET_NOISE)
    # The runner names its checkpoints by absolute paths.
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / _RECORDS
    found = {_key(record): record for record in read_records(results)}
    settings = {
        (loss, condition): _settings(config, condition, split)
        for loss, config in configs.items()
        for condition in conditions
    }
    records = []
    for seed in seeds:
        for condition in conditions:
            for loss, config in configs.items():
                name = dict(loss=loss, condition=condition, seed=seed, split=split)
                record = name | dict(config=settings[loss, condition])
                if _key(record) in found:
                    record = found[_key(record)]
                else:
                    stem = f'{loss}_{condition}_{seed}_{split}'
                    # Runs of another configuration are kept, their logs apart.
                    work_dir = folder / 'runs' / f'{stem}_{record["config"][:8]}'
                    shutil.rmtree(work_dir, ignore_errors=True)
                    prepared = _prepare(config, condition, seed, split)
                    metrics, checkpoint = train_once(prepared, work_dir)
                    record |= metrics
                    record['checkpoint'] = str(checkpoint.relative_to(folder))
                    append_record(results, record)
                records.append(record)
                on_done(record)
    return records


def latest_records(folder: Path) -> list[dict]:
    """Finished runs of a comparison, whatever their configuration is.

    Of several with one loss, condition, seed and split the last counts.
    """
    keys = ('loss', 'condition', 'seed', 'split')
    return last_of_each(read_records(folder / _RECORDS), keys)


def train_once(config: Config, work_dir: Path) -> tuple[dict[str, float], Path]:
    """Train, then evaluate the checkpoint that was best on the validation part.

    Args:
        config: A config as in ``configs/forecasting``; not changed.
        work_dir: Where logs and checkpoints go.

    Returns:
        Metrics of the config's test data set, and the checkpoint.

    Raises:
        FloatingPointError: If the training diverged before the first validation.
    """
    config = copy.deepcopy(config)
    config.work_dir = str(work_dir)
    # MMEngine wants a name of its own for each runner of a process.
    config.experiment_name = work_dir.name
    runner = Runner.from_cfg(config)
    runner.train()
    best = runner.message_hub.get_info('best_ckpt')
    if best is None:
        raise FloatingPointError(
            f'{work_dir}: the error on the validation part was never finite, so that '
            'no checkpoint is the best; lower the learning rate, or leave this loss out'
        )
    checkpoint = Path(best)
    # Silent, since the runner's own method prints into the progress bar.
    load_checkpoint(runner.model, str(checkpoint), 'cpu', strict=True, logger='silent')
    metrics = runner.test()
    return {key.split('/')[-1]: value for key, value in metrics.items()}, checkpoint


def _prepare(config: Config, condition: str, seed: int, split: str) -> Config:
    # Deep: Config.copy() shares everything but the top level.
    config = copy.deepcopy(config)
    noise = TARGET_NOISE[condition]
    if noise is None:
        config.train_dataloader.dataset.pop('target_noise', None)
    else:
        config.train_dataloader.dataset.target_noise = dict(seed=seed, **noise)
    config.test_dataloader.dataset.split = split
    config.randomness = dict(seed=seed)
    # The config may be one that a resumed training left.
    config.resume = False
    # The runner's deprecation warnings, repeated by each run, tear the progress bar.
    config.log_level = 'ERROR'
    return config


def _settings(config: Config, condition: str, split: str) -> str:
    """Hash of what the seeds of a training have in common."""
    config = _prepare(config, condition, 0, split)
    # To the letter, since the checkpoint that is reported depends on the validations,
    # which config_hash leaves out.
    whole = [config.to_dict(), config_hash(config)]
    text = json.dumps(whole, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _key(record: Mapping) -> tuple:
    keys = ('loss', 'condition', 'seed', 'split', 'config')
    return tuple(record[key] for key in keys)
