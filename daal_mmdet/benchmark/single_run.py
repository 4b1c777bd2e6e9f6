"""One run of a benchmark: train, or go on, then evaluate the last checkpoint.

    python -m daal_mmdet.benchmark.single_run CONFIG FOLDER

writes ``FOLDER/result.json``. A process of its own, so that a crash ends one run alone.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import hashlib
import json
import os
import statistics
import sys
import threading
from pathlib import Path

import mmcv
import mmdet
import mmengine
import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import daal_mmdet
from daal_mmdet.benchmark.checkpoints import latest_whole_checkpoint
from daal_mmdet.benchmark.evaluation_record import evaluation_record
from daal_mmdet.benchmark.memory_layout import lay_out_for_cpu
from daal_mmdet.benchmark.schedule import schedule_length
from daal_mmdet.cli import build_runner
from daal_mmdet.code_digest import source_digest
from daal_mmdet.config_hash import config_hash
from daal_mmdet.cpu_processes import run_on_cpu
from daal_mmdet.evaluation.no_detections import take_no_detections
from daal_mmdet.logged_scalars import read_scalars
from daal_mmdet.whole_file import write_whole

__all__ = ['PROGRESS', 'RESULT', 'main', 'train_and_evaluate']

RESULT = 'result.json'
PROGRESS = 'progress'
# Checkpoints of an iteration-based training, so that a kill costs an eighth of it.
_CHECKPOINTS_PER_RUN = 8


def train_and_evaluate(config: Config, folder: Path) -> dict:
    """Train from the folder's last checkpoint, or from the start, then evaluate.

    Args:
        config: A training config with ``randomness.seed``; changed in place.
        folder: Work dir of the run.

    Returns:
        ``val`` and ``test`` (None where the config has no such part) as
        :func:`evaluation_record` gives them, and how they came about.
    """
    _prepare(config, folder)
    checkpoint = latest_whole_checkpoint(folder)
    # The base config may be one that a resumed training left.
    config.resume = checkpoint is not None
    if checkpoint is not None:
        config.load_from = str(checkpoint)
    runner = build_runner(config)
    if run_on_cpu():
        # Weights drawn in this layout are others than tools/train.py draws, so all runs
        # must have it.
        lay_out_for_cpu(runner.model)
    # CocoMetric would return nothing then, and MMEngine log the last AP once more.
    with take_no_detections():
        runner.train()
        result = {part: _evaluate(runner, part) for part in ('val', 'test')}
    times = [entry['time'] for entry in read_scalars(folder).train if 'time' in entry]
    return result | dict(
        seconds_per_iteration=statistics.median(times) if times else None,
        iterations=runner.iter,
        device=_device(),
        threads=torch.get_num_threads(),
        versions=_versions(),
        code=_code_digest(),
    )


def _prepare(config: Config, folder: Path) -> None:
    """Add what a benchmark needs and what leaves the trained weights as they are."""
    config.work_dir = str(folder)
    config.experiment_name = folder.name
    config.launcher = 'none'
    # MMEngine keeps a visualizer under its name as long as the process lives; without
    # one it takes the experiment's, so that each run logs to its own folder.
    if config.get('visualizer') is not None:
        config.visualizer.pop('name', None)
    key, length = schedule_length(config)
    by_epoch = key == 'max_epochs'
    config.setdefault('default_hooks', {})
    # Without it all validations of an iteration-based training are logged at step 0.
    config.default_hooks.setdefault('logger', dict(type='LoggerHook'))
    config.default_hooks.logger.log_metric_by_epoch = by_epoch
    config.default_hooks.checkpoint = dict(
        type='CheckpointHook',
        by_epoch=by_epoch,
        interval=1 if by_epoch else max(1, length // _CHECKPOINTS_PER_RUN),
        # The older one goes before the new one is written.
        max_keep_ckpts=2,
    )
    seed = config.randomness.seed
    config.custom_hooks = [
        *(config.get('custom_hooks') or []),
        dict(type='mmdet.RepeatableTrainingHook', seed=seed),
        dict(type='mmdet.ProgressFileHook', path=str(folder / PROGRESS)),
    ]


def _evaluate(runner: Runner, part: str) -> dict | None:
    if runner.cfg.get(f'{part}_cfg') is None:
        return None
    metrics = runner.val() if part == 'val' else runner.test()
    loop = runner.val_loop if part == 'val' else runner.test_loop
    return evaluation_record(metrics, loop.dataloader.dataset.metainfo['classes'])


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'


def _versions() -> dict[str, str]:
    modules = (daal_mmdet, mmcv, mmdet, mmengine, np, torch)
    versions = {module.__name__: str(module.__version__) for module in modules}
    return dict(python=sys.version.split()[0], **versions)


def _code_digest() -> str:
    """Hash of this package's code, to tell whether two runs used the same."""
    package = Path(daal_mmdet.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob('*.py')):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        digest.update(source_digest(tree).encode())
    return digest.hexdigest()[:16]


def _exit_with_parent() -> None:
    """End this process when the one that holds the other end of its input ends."""

    def wait() -> None:
        # Not sys.stdin: a data worker forked meanwhile would inherit its lock, taken.
        while os.read(0, 1):
            continue
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(argv: list[str] | None = None) -> None:
    """Run, unless the result is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('folder', type=Path)
    parser.add_argument(
        '--exit-with-parent',
        action='store_true',
        help='end when the standard input ends, so that no run outlives a kill',
    )
    parser.add_argument(
        '--hash', help='hash of the config by which the run will be known'
    )
    args = parser.parse_args(argv)
    config = Config.fromfile(args.config)
    if args.hash is not None and config_hash(config) != args.hash:
        parser.error(
            f'--hash: expected {args.hash}, got {config_hash(config)}: code or data '
            'changed since the benchmark was started; start it again'
        )
    if args.exit_with_parent:
        _exit_with_parent()
    with (args.folder / 'lock').open('w') as lock:
        # A second benchmark in the folder waits here, then finds the result.
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = args.folder / RESULT
        if result.is_file():
            return
        record = train_and_evaluate(config, args.folder)
        write_whole(result, json.dumps(record, allow_nan=False))


if __name__ == '__main__':
    main()
