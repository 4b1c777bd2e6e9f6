"""Print what DAALLoss and KalmanCovarianceHook add to a distributed training."""

import argparse
from pathlib import Path

import torch.nn as nn
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config

import daal_mmdet  # noqa: F401 - registers its modules
from daal_mmdet.cost_model import Cluster, cost_table, workload_of
from daal_mmdet.hooks import KalmanCovarianceHook
from daal_mmdet.losses import DAALLoss
from daal_mmdet.placed_dicts import built_class
from daal_mmdet.preflight import require_file


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', help='config files of detectors')
    parser.add_argument(
        '--gpus',
        nargs='+',
        type=int,
        default=[1, 2, 8, 64, 256, 1024],
        help='numbers of GPUs (default: 1 2 8 64 256 1024)',
    )
    parser.add_argument(
        '--image-size',
        nargs=2,
        type=int,
        default=[800, 1344],
        metavar=('HEIGHT', 'WIDTH'),
        help='of the padded batches (default: 800 1344)',
    )
    parser.add_argument(
        '--positives',
        type=int,
        default=256,
        help='positive anchors or RoIs of a GPU in an iteration (default 256, the most '
        'that two images give Faster R-CNN)',
    )
    parser.add_argument(
        '--step-seconds',
        type=float,
        default=0.2,
        help='time of a step without any exchange (default 0.2)',
    )
    parser.add_argument('--gpus-per-node', type=int, default=Cluster.gpus_per_node)
    parser.add_argument(
        '--network-bandwidth',
        type=float,
        default=Cluster.network_bandwidth,
        metavar='BYTES',
        help='bytes a second between nodes, for each GPU (default %(default)g)',
    )
    args = parser.parse_args(argv)
    for name in ('positives', 'step_seconds', 'gpus_per_node', 'network_bandwidth'):
        value = getattr(args, name)
        if not value > 0:
            parser.error(f'--{name.replace("_", "-")}: expected > 0, got {value}')
    if min(args.image_size) < 1:
        parser.error(f'--image-size: expected sides > 0, got {args.image_size}')
    return args


def missing_parts(config: Config, model: nn.Module) -> list[str]:
    """Which of the two that the table is about a training does not have."""
    missing = []
    if not any(isinstance(module, DAALLoss) for module in model.modules()):
        missing.append('DAALLoss')
    hooks = config.get('custom_hooks') or []
    kinds = [built_class(hook, HOOKS) for hook in hooks]
    if KalmanCovarianceHook not in kinds:
        missing.append('KalmanCovarianceHook')
    return missing


def main(argv: list[str] | None = None) -> None:
    """Print the table, and below it which of its costs a config does not have."""
    args = parse_args(argv)
    workloads, notes = [], []
    for path in args.configs:
        require_file('config', path)
        name = '/'.join(Path(path).with_suffix('').parts[-2:])
        config = Config.fromfile(path)
        model = MODELS.build({**config.model, '_scope_': 'mmdet'})
        try:
            workload = workload_of(
                name, model, args.image_size, args.positives, args.step_seconds
            )
        except ValueError as error:
            raise SystemExit(str(error)) from error
        workloads.append(workload)
        missing = ' and no '.join(missing_parts(config, model))
        if missing:
            notes.append(f'{name} has no {missing}: the table shows what it would add')
    cluster = Cluster(args.gpus_per_node, network_bandwidth=args.network_bandwidth)
    try:
        print(cost_table(workloads, args.gpus, cluster))
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if notes:
        print('', *notes, sep='\n')


if __name__ == '__main__':
    main()
