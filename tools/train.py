"""Train a detector: mmdet's command, with the losses of daal_mmdet registered."""

import argparse

from mmengine.runner import Runner

import daal_mmdet  # noqa: F401 - registers its modules
from daal_mmdet.cli import (
    add_common_arguments,
    build_runner,
    load_config,
    plain_errors,
    resume,
)
from daal_mmdet.cpu_processes import run_on_cpu
from daal_mmdet.data_check import check_data
from daal_mmdet.hooks.fitting_checkpoint_hook import FittingCheckpointHook
from daal_mmdet.placed_dicts import bare_type
from daal_mmdet.preflight import (
    require_checkpoint,
    require_output_folder,
    require_weights,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        '--amp', action='store_true', help='train with automatic mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by this run's batch size over "
        'auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, without a name from the latest sound one in the '
        'work dir',
    )
    parser.add_argument(
        '--no-data-check',
        action='store_true',
        help='do not look for broken boxes and missing images before the start',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train."""
    args = parse_args(argv)
    config = load_config(args, loaders=['train', 'val'])
    if args.amp:
        wrapper = bare_type(config.optim_wrapper) or 'OptimWrapper'
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise SystemExit(
                '--amp: expected optim_wrapper.type OptimWrapper or AmpOptimWrapper, '
                f'got {wrapper!r}'
            )
        if run_on_cpu():
            raise SystemExit('--amp: mixed precision needs a GPU, and there is none')
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (config.get('auto_scale_lr') or {}):
            raise SystemExit(
                '--auto-scale-lr: the config needs '
                'auto_scale_lr=dict(base_batch_size=...), and has '
                f'auto_scale_lr={config.get("auto_scale_lr")}'
            )
        config.auto_scale_lr.enable = True
    if args.resume is not None:
        resume(config, args.resume)
    # MMEngine initialises the model before it loads what a training goes on from.
    require_weights(config)
    # A resume has looked at its checkpoint.
    resumes = args.resume is not None and config.resume
    if not resumes and config.get('load_from'):
        require_checkpoint('load_from', config.load_from)
    require_output_folder('--work-dir', config.work_dir)
    if not args.no_data_check:
        check_data(config)
    with plain_errors():
        runner = build_runner(config)
        # The model of a FlexibleRunner may be in parts that hold no whole weight.
        if config.resume and isinstance(runner, Runner):
            asked_by = 'resume' if args.resume is None else '--resume'
            runner.register_hook(FittingCheckpointHook(asked_by))
        runner.train()


if __name__ == '__main__':
    main()
