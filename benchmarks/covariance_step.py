"""One filter step of the covariance bank: the cost that the box loss adds to a step.

The slots are the anchors of a RetinaNet: nine a cell on five levels of a feature
pyramid. Each step measures random slots of all levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from pairs import machine, measure

from daal_mmdet.covariance_bank import COVARIANCES, CovarianceBank
from daal_mmdet.markdown_table import markdown_table

# Strides 8 to 128 of an image of 928 x 1216.
GRIDS = [(116, 152), (58, 76), (29, 38), (15, 19), (8, 10)]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--templates', type=int, default=9, help='anchors of a cell')
    parser.add_argument('--positives', type=int, default=300)
    parser.add_argument('--rounds', type=int, default=101)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    return parser.parse_args(argv)


def make_step(bank: CovarianceBank, positives: int) -> Callable[[], None]:
    """Look up the weights of random positives and step their filters."""

    def run() -> None:
        slots = torch.randint(len(bank), (positives,), device=bank.device)
        residuals = torch.randn(positives, 4, device=bank.device)
        bank.log_det(slots)
        bank.step(slots, residuals)

    return run


def main(argv: list[str] | None = None) -> None:
    """Measure, and print a table."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    banks = {kind: CovarianceBank(kind, device=args.device) for kind in COVARIANCES}
    for bank in banks.values():
        for height, width in GRIDS:
            bank.add_level(args.templates, height, width)
    steps = {kind: make_step(bank, args.positives) for kind, bank in banks.items()}
    done = measure(steps, args.rounds, device=args.device)
    print(f'{machine(args.device)}; {args.positives} positives.\n')
    rows = [
        [
            kind,
            str(len(banks[kind])),
            f'{of.milliseconds:.2f}',
            f'{of.peak / 2**20:.2f}',
        ]
        for kind, of in done.items()
    ]
    print(markdown_table(('covariance', 'slots', 'ms a step', 'peak MiB'), rows))


if __name__ == '__main__':
    main()
