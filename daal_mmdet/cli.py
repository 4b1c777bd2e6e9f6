"""What the training and the test command share."""

from __future__ import annotations

import argparse
import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, DictAction
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from daal_mmdet.checkpoints import find_resumable, why_not_resumable
from daal_mmdet.cpu_processes import join_cpu_processes, run_on_cpu
from daal_mmdet.hooks.finite_checkpoint_hook import FiniteCheckpointHook, NotFiniteError
from daal_mmdet.hooks.fitting_checkpoint_hook import OtherModelError
from daal_mmdet.preflight import require_data, require_file
from daal_mmdet.whole_file_backend import NotWrittenError

__all__ = [
    'add_common_arguments',
    'build_runner',
    'load_config',
    'plain_errors',
    'resume',
]

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that mmdet's train and test tools have in common."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, such as '
        'model.bbox_head.loss_cls.type=DAALLoss; "[a,b]" or a,b is a list',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run were started',
    )
    # torch.distributed.launch passes the first form before PyTorch 2, the second since.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args: argparse.Namespace, loaders: Sequence[str]) -> Config:
    """Read the config that the command line asks for, with its changes.

    ``daal_mmdet`` is imported by the config whatever the config says, so that worker
    processes and a dumped copy of it know the losses too.

    Args:
        args: Parsed options of :func:`add_common_arguments`.
        loaders: Which of ``'train'``, ``'val'`` and ``'test'`` will be used.

    Raises:
        SystemExit: If there is no such config, or data are missing, see
            :func:`~daal_mmdet.preflight.require_data`.
    """
    require_file('config', args.config)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    # Models whose image size varies would otherwise recompile for each of them.
    setup_cache_size_limit_of_dynamo()
    config = Config.fromfile(args.config)
    config.launcher = args.launcher
    if args.cfg_options:
        config.merge_from_dict(args.cfg_options)
    imports = config.get('custom_imports') or {'imports': []}
    modules = imports['imports']
    modules = [modules] if isinstance(modules, str) else list(modules)
    if 'daal_mmdet' not in modules:
        config.custom_imports = {**imports, 'imports': [*modules, 'daal_mmdet']}
    for name in loaders:
        require_data(config, name)
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return config


def resume(config: Config, checkpoint: str) -> None:
    """Make the config go on from a checkpoint, instead of ``load_from``.

    Args:
        config: Config to change.
        checkpoint: A file; or 'auto' for the newest sound one of the work dir, see
            :func:`~daal_mmdet.checkpoints.find_resumable`. With a work dir without any
            training starts as the config says, from ``load_from`` if it has that.

    Raises:
        SystemExit: If there is no such file, it is damaged or one of weights alone, or
            'auto' finds only such ones.
    """
    config.resume = True
    if checkpoint != 'auto':
        require_file('--resume', checkpoint)
        local = '://' not in checkpoint
        reason = why_not_resumable(os.path.expanduser(checkpoint)) if local else None
        if reason is not None:
            raise SystemExit(
                f"--resume: the training can't go on from {checkpoint}: {reason}"
            )
        config.load_from = checkpoint
        return
    try:
        found = find_resumable(config.work_dir)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if found is None:
        # mmengine would look for the file that last_checkpoint names.
        config.resume = False
        return
    for path, reason in found.damaged.items():
        print_log(f'--resume: {path} is left aside: {reason}', level=logging.WARNING)
    config.load_from = str(found.path)


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with a message alone where a traceback would only hide it.

    These are a disk that takes no more, a checkpoint that is not finite and one of
    another model: what to do is in the message.

    Raises:
        SystemExit: In their place.
    """
    try:
        yield
    except (NotFiniteError, OtherModelError) as error:
        raise SystemExit(str(error)) from error
    except NotWrittenError as error:
        raise SystemExit(error.strerror) from error
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise SystemExit(
            f'could not write {error.filename or "a file"} ({error.strerror}). Make '
            'room or give the rights, and go on with --resume'
        ) from error


def build_runner(config: Config) -> Runner:
    """Build the runner that the config names, mmengine's own unless it says.

    Started by a launcher where there is no accelerator, the processes are joined first.
    Whatever the config says, no checkpoint is written that is not finite.
    """
    if config.launcher == 'pytorch' and run_on_cpu():
        join_cpu_processes(config)
    runner = (
        RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    )
    if not any(isinstance(hook, FiniteCheckpointHook) for hook in runner.hooks):
        # Not by the config, which names what a run computes.
        runner.register_hook(FiniteCheckpointHook())
    return runner
