"""Whole train steps: a config with our losses against its twin with mmdet's.

Forward, backward and optimizer step of two detectors that start with equal weights, on
the same batches in turns. Ours has DAALLoss, the weighted box loss and the hook; the
twin FocalLoss and L1Loss. Loading of data is not part of it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from pairs import PAIR_HEADER, machine, measure, pair_row

from daal_mmdet.markdown_table import markdown_table

CONFIGS = Path(__file__).parents[1] / 'configs' / 'bccd'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--config',
        type=Path,
        default=CONFIGS / 'retinanet_mobilenetv2_daal_uncertainty.py',
    )
    parser.add_argument(
        '--twin', type=Path, default=CONFIGS / 'retinanet_mobilenetv2_focal.py'
    )
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--batches', type=int, default=4, help='taken in turns')
    parser.add_argument('--rounds', type=int, default=21)
    parser.add_argument('--threads', type=int, help="PyTorch's own number by default")
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    return parser.parse_args(argv)


def load_batches(config: Config, batch_size: int, count: int) -> list[dict]:
    """The first batches of a config's training data."""
    loader = config.train_dataloader
    loader.update(batch_size=batch_size, num_workers=0, persistent_workers=False)
    batches = Runner.build_dataloader(loader, seed=0)
    return list(itertools.islice(batches, count))


def train_step(config: Config, batches: list[dict], device: str) -> Callable[[], None]:
    """One iteration of a training, with the hooks that follow a box covariance."""
    torch.manual_seed(0)
    model = MODELS.build(config.model).to(device)
    model.init_weights()
    model.train()
    optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
    hooks = [
        HOOKS.build(hook)
        for hook in config.get('custom_hooks', [])
        if hook['type'] == 'KalmanCovarianceHook'
    ]
    runner = SimpleNamespace(model=model, iter=0)
    for hook in hooks:
        hook.before_train(runner)

    def run() -> None:
        # As RuntimeInfoHook does: our losses step their filters when it changes.
        MessageHub.get_current_instance().update_info('iter', runner.iter)
        batch = batches[runner.iter % len(batches)]
        outputs = model.train_step(batch, optim_wrapper)
        for hook in hooks:
            hook.after_train_iter(runner, runner.iter, batch, outputs)
        runner.iter += 1

    return run


def main(argv: list[str] | None = None) -> None:
    """Measure, and print a table."""
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    # Otherwise the table follows thousands of lines on initial weights.
    MMLogger.get_instance('mmengine', log_level='WARNING')
    torch.manual_seed(0)
    init_default_scope('mmdet')
    ours, twin = Config.fromfile(args.config), Config.fromfile(args.twin)
    batches = load_batches(twin, args.batch_size, args.batches)
    steps = {
        'ours': train_step(ours, batches, args.device),
        'peer': train_step(twin, batches, args.device),
    }
    done = measure(steps, args.rounds, device=args.device)
    print(f'{machine(args.device)}; batch size {args.batch_size}.\n')
    rows = [[args.config.stem, args.twin.stem, *pair_row(done['ours'], done['peer'])]]
    print(markdown_table(('config', 'peer', *PAIR_HEADER), rows))


if __name__ == '__main__':
    main()
