"""DAALLoss against the loss of mmdet that it replaces, forward and backward.

Sigmoid: against ``FocalLoss``, with the adaptive parts on and off.
Softmax: against ``CrossEntropyLoss``. With the parts on each call is an iteration, so
that both filters step in every call.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from mmdet.models.losses import CrossEntropyLoss, FocalLoss
from pairs import PAIR_HEADER, machine, measure, pair_row

from daal_mmdet.losses import DAALLoss
from daal_mmdet.markdown_table import markdown_table

SIGMOID = [(100_000, 80), (20_000, 1203)]
SOFTMAX = [(2048, 80), (2048, 1203)]
VARIANTS = {
    'on': dict(bnm_weight=0.05),
    'off': dict(class_balance=None),
    'default': {},
    'class balance': dict(confusion_weight=0.0),
    'BNM': dict(bnm_weight=0.05, class_balance=None),
}


def shapes(text: str) -> list[tuple[int, int]]:
    """Parse '100000x80,20000x1203'; an empty text is no shape."""
    pairs = [part.split('x') for part in text.split(',') if part]
    return [(int(rows), int(classes)) for rows, classes in pairs]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--sigmoid', type=shapes, default=SIGMOID, metavar='NxC,...')
    parser.add_argument('--softmax', type=shapes, default=SOFTMAX, metavar='NxC,...')
    parser.add_argument('--positives', type=int, default=300)
    parser.add_argument(
        '--parts', nargs='+', choices=list(VARIANTS), default=['on', 'off']
    )
    parser.add_argument('--rounds', type=int, default=21)
    parser.add_argument('--threads', type=int, help="PyTorch's own number by default")
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    return parser.parse_args(argv)


def step(
    loss: torch.nn.Module, logits: torch.Tensor, labels: torch.Tensor, count: float
) -> Callable[[], None]:
    """One forward and backward pass as a head makes it."""
    weight = torch.ones(len(labels), device=labels.device)

    def run() -> None:
        logits.grad = None
        loss(logits, labels, weight, avg_factor=count).backward()

    return run


def labels_with(num_rows: int, num_classes: int, positives: int) -> torch.Tensor:
    """Labels with ``positives`` rows of random classes, background elsewhere."""
    labels = torch.full((num_rows,), num_classes)
    rows = torch.randperm(num_rows)[:positives]
    labels[rows] = torch.randint(num_classes, (len(rows),))
    return labels


def main(argv: list[str] | None = None) -> None:
    """Measure, and print a table."""
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = []
    cases = [(True, shape) for shape in args.sigmoid]
    cases += [(False, shape) for shape in args.softmax]
    for use_sigmoid, (N, C) in cases:
        columns = C if use_sigmoid else C + 1
        logits = torch.randn(N, columns, device=args.device) - 2
        logits.requires_grad_()
        labels = labels_with(N, C, args.positives).to(args.device)
        peer_type = FocalLoss if use_sigmoid else CrossEntropyLoss
        # As the heads average: over the positives, or over all sampled rows.
        count = float(args.positives if use_sigmoid else N)
        candidates = {'peer': step(peer_type(), logits, labels, count)}
        for name in args.parts:
            ours = DAALLoss(use_sigmoid=use_sigmoid, **VARIANTS[name]).to(args.device)
            candidates[name] = step(ours, logits, labels, count)
        # Small cases are short, and need more rounds for a steady median.
        rounds = args.rounds * max(1, min(10, 4_000_000 // (N * columns)))
        done = measure(candidates, rounds, device=args.device)
        for name in args.parts:
            mode = 'sigmoid' if use_sigmoid else 'softmax'
            case = [f'{mode} {N} x {columns}', peer_type.__name__, name]
            rows.append(case + pair_row(done[name], done['peer']))
    print(f'{machine(args.device)}; {args.positives} positives.\n')
    print(markdown_table(('logits', 'peer', 'adaptive parts', *PAIR_HEADER), rows))


if __name__ == '__main__':
    main()
