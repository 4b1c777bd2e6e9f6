"""Trainings of a counting model by several schemes, kept in a resumable file."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from daal_mmdet.config_hash import config_hash
from daal_mmdet.placed_dicts import bare_type
from daal_mmdet.run_records import append_record, last_of_each, read_records

__all__ = ['RECORDS', 'latest_records', 'paired_runs', 'run_schemes', 'train_once']

RECORDS = 'runs.jsonl'


def run_schemes(
    configs: Mapping[str, Config],
    folds: Sequence[int | None],
    seeds: Sequence[int],
    folder: Path,
    on_done: Callable[[dict], None] = lambda record: None,
) -> list[dict]:
    """Train every scheme on every fold with every seed, and count the held-out images.

    A finished run is one line of ``folder/runs.jsonl``. Called again, it does only what
    is missing: a line counts if the configuration, and the code of the model, are the
    same (:func:`~daal_mmdet.config_hash.config_hash`), and so are the images
    and points, wherever they lie. One seed gives all schemes the same first weights and
    the same crops.

    Args:
        configs: Training config by the name of its scheme, as in ``configs/counting``.
        folds: Folds of the data set; ``[None]`` for one without.
        seeds: Seeds of weights, order of the data, and crops.
        folder: Where results and checkpoints go.
        on_done: Called with each record, new or found.

    Returns:
        A record for each run: scheme, fold, seed, ``MAE``, ``RMSE`` and ``bias``, the
        counts of each image, the mean count of the training images, the seconds it took
        and the checkpoint, relative to ``folder``. A number that is not finite, since
        the training diverged, is None.
    """
    # The runner names its checkpoints by absolute paths.
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / RECORDS
    found = {_key(record): record for record in read_records(results)}
    digests: dict[str, str] = {}
    records = []
    for seed in seeds:
        for fold in folds:
            for scheme, config in configs.items():
                prepared = _prepare(config, fold, seed)
                record = dict(
                    scheme=scheme,
                    fold=fold,
                    seed=seed,
                    config=config_hash(prepared),
                    data=_data_digest(prepared, digests),
                )
                if _key(record) in found:
                    record = found[_key(record)]
                else:
                    name = f'{scheme}_{"" if fold is None else f"fold{fold}_"}{seed}'
                    # Runs of another configuration are kept, their logs apart.
                    work_dir = folder / 'runs' / f'{name}_{record["config"][:8]}'
                    shutil.rmtree(work_dir, ignore_errors=True)
                    record |= _finite_or_none(train_once(prepared, work_dir))
                    record['work_dir'] = str(work_dir.relative_to(folder))
                    append_record(results, record)
                records.append(record)
                on_done(record)
    return records


def latest_records(
    folder: Path, configs: Mapping[str, Config] | None = None
) -> list[dict]:
    """Finished runs of a comparison.

    Of several with one scheme, fold and seed the last counts.

    Args:
        folder: Folder of the comparison.
        configs: Training config by scheme, as for :func:`run_schemes`: if any runs are
            theirs, these alone count. None, or if none is: whatever their
            configurations are.

    Raises:
        ValueError: If there are none, or runs of one fold had different data.
    """
    keys = ('scheme', 'fold', 'seed')
    records = read_records(folder / RECORDS)
    latest = last_of_each(_runs_of(records, configs or {}) or records, keys)
    if not latest:
        raise ValueError(f'there are no runs in {folder}')
    first_of_fold: dict[int | None, dict] = {}
    for record in latest:
        first = first_of_fold.setdefault(record['fold'], record)
        if record.get('data') != first.get('data'):
            one, other = (f'{r["scheme"]}, seed {r["seed"]}' for r in (first, record))
            raise ValueError(
                f'{folder / RECORDS}: expected runs of the same data, got others for '
                f'({one}) and ({other}); give each data set a folder of its own'
            )
    return latest


def paired_runs(
    records: Sequence[dict],
    schemes: Sequence[str],
    folds: Sequence[int | None] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[dict]:
    """Of runs those that make a table: each fold and seed with all of its schemes.

    Args:
        records: As of :func:`latest_records`.
        schemes: The schemes to take, where there are runs of them, in this order.
        folds: The folds to take; None for all.
        seeds: The seeds to take; None for all.

    Raises:
        ValueError: If nothing is left.
    """
    chosen = [
        record
        for record in records
        if record['scheme'] in schemes
        and (folds is None or record['fold'] in folds)
        and (seeds is None or record['seed'] in seeds)
    ]
    present = {record['scheme'] for record in chosen}
    places = Counter((record['fold'], record['seed']) for record in chosen)
    whole = [r for r in chosen if places[r['fold'], r['seed']] == len(present)]
    if not whole:
        raise ValueError(
            f'expected a fold and seed with runs of all of {list(schemes)}, got none '
            f'among {len(records)} runs'
        )
    return sorted(whole, key=lambda record: schemes.index(record['scheme']))


def _runs_of(records: Sequence[dict], configs: Mapping[str, Config]) -> list[dict]:
    hashes: dict[tuple[str, int | None], str] = {}
    kept = []
    for record in records:
        place = record['scheme'], record['fold']
        if record['scheme'] in configs and place not in hashes:
            prepared = _prepare(configs[record['scheme']], record['fold'], 0)
            hashes[place] = config_hash(prepared)
        if place in hashes and record.get('config') == hashes[place]:
            kept.append(record)
    return kept


def train_once(config: Config, work_dir: Path) -> dict:
    """Train, and count the held-out images with the weights of the last iteration.

    There is no validation part to choose a checkpoint by, and choosing by the held-out
    images would flatter the result.

    Args:
        config: A config as in ``configs/counting``; not changed.
        work_dir: Where logs and checkpoints go.

    Returns:
        ``MAE``, ``RMSE``, ``bias``, ``counts``: truth and prediction by image,
        ``train_mean``, ``seconds``.
    """
    config = copy.deepcopy(config)
    config.work_dir = str(work_dir)
    # MMEngine wants names of their own for each runner of a process, and would log into
    # the folder of the first one whose visualizer has the same name.
    config.experiment_name = work_dir.name
    config.visualizer.name = work_dir.name
    # It would end the whole comparison, and a run that diverges is a result of it.
    config.custom_hooks = [
        hook
        for hook in config.get('custom_hooks') or []
        if bare_type(hook) != 'CheckInvalidLossHook'
    ]
    table = work_dir / 'counts.csv'
    config.test_evaluator.table_file = str(table)
    start = time.monotonic()
    runner = Runner.from_cfg(config)
    runner.train()
    metrics = runner.test()
    dataset = runner.train_dataloader.dataset
    numbers = [len(dataset.get_data_info(i)['gt_points']) for i in range(len(dataset))]
    with table.open(encoding='utf-8') as file:
        counts = {
            row['image']: [float(row['truth']), float(row['predicted'])]
            for row in csv.DictReader(file)
        }
    record = {key.split('/')[-1]: value for key, value in metrics.items()}
    return record | dict(
        counts=counts,
        train_mean=float(np.mean(numbers)),
        seconds=round(time.monotonic() - start, 1),
    )


def _prepare(config: Config, fold: int | None, seed: int) -> Config:
    # Deep: Config.copy() shares everything but the top level.
    config = copy.deepcopy(config)
    for name in ('train', 'test'):
        if fold is not None:
            config[f'{name}_dataloader'].dataset.fold = fold
    # The held-out images are counted once, after the training.
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        config[key] = None
    config.randomness = dict(seed=seed)
    # The config may be one that a resumed training left.
    config.resume = False
    # The runner's deprecation warnings, repeated by each run, tear the progress bar.
    config.log_level = 'ERROR'
    return config


def _key(record: Mapping) -> tuple:
    # Records of before there was a digest don't say what they were trained on.
    data = record.get('data')
    return (*(record[key] for key in ('scheme', 'fold', 'seed', 'config')), data)


def _data_digest(config: Config, known: dict[str, str]) -> str:
    """Hash of the images' names, sizes and points, which ``config_hash`` leaves out.

    Args:
        config: A config as in ``configs/counting``.
        known: Digests by the settings of the data sets, added to: schemes share them.
    """
    settings = [config[f'{name}_dataloader'].dataset for name in ('train', 'test')]
    text = json.dumps([s.to_dict() for s in settings], sort_keys=True, default=str)
    if text not in known:
        init_default_scope(config.get('default_scope', 'mmdet'))
        # As the runs: what a data set warns of tears the progress bar.
        if not MMLogger.check_instance_created('data_digest'):
            MMLogger.get_instance('data_digest', log_level=config.log_level)
        digest = hashlib.sha256()
        for part in map(DATASETS.build, settings):
            # The two parts end somewhere else if an image moves to the other one.
            digest.update(f'{len(part)} images\n'.encode())
            for i in range(len(part)):
                item = part.get_data_info(i)
                points = np.ascontiguousarray(item['gt_points'], np.float64)
                shown = [item['img_id'], item['height'], item['width'], len(points)]
                # Stands for what the image shows, which would take long to read.
                shown.append(Path(item['img_path']).stat().st_size)
                digest.update(f'{shown}\n'.encode() + points.tobytes())
        known[text] = digest.hexdigest()[:16]
    return known[text]


def _finite_or_none(value: object) -> object:
    """JSON has no NaN, and a run that diverged is a result, not one that is missing."""
    if isinstance(value, Mapping):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_none(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
