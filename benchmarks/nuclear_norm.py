"""Nuclear norm, forward and backward, against ``torch.linalg.matrix_norm``.

The matrices are softmax rows, as the losses pass them. The errors are relative to
``matrix_norm`` in float64. The last table shows that the loss term costs no more for
many foreground rows than for as many as its cap.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from pairs import PAIR_HEADER, machine, measure, pair_row

from daal_mmdet.losses import BNMLoss
from daal_mmdet.markdown_table import markdown_table
from daal_mmdet.nuclear_norm import METHODS, nuclear_norm

SHAPES = [(512, 80), (2048, 80), (512, 1203), (2048, 1203)]
CAP_ROWS = [1024, 10_000]


def shapes(text: str) -> list[tuple[int, int]]:
    """Parse '512x80,2048x1203'; an empty text is no shape."""
    pairs = [part.split('x') for part in text.split(',') if part]
    return [(int(rows), int(columns)) for rows, columns in pairs]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--shapes', type=shapes, default=SHAPES, metavar='BxC,...')
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=['auto'])
    parser.add_argument(
        '--scale', type=float, default=1.0, help='standard deviation of the logits'
    )
    parser.add_argument('--cap-rows', type=int, nargs='*', default=CAP_ROWS)
    parser.add_argument('--rounds', type=int, default=101)
    parser.add_argument('--threads', type=int, help="PyTorch's own number by default")
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    return parser.parse_args(argv)


def step(
    function: Callable[[torch.Tensor], torch.Tensor], leaf: torch.Tensor
) -> Callable[[], None]:
    """One forward and backward pass."""

    def run() -> None:
        leaf.grad = None
        function(leaf).backward()

    return run


def errors(matrix: torch.Tensor, method: str) -> list[str]:
    """Relative error of the value and, in the Frobenius norm, of the gradient."""
    ours, exact = matrix.detach().requires_grad_(), matrix.detach().double()
    exact.requires_grad_()
    value, want = nuclear_norm(ours, method), torch.linalg.matrix_norm(exact, 'nuc')
    (grad,) = torch.autograd.grad(value, ours)
    (want_grad,) = torch.autograd.grad(want, exact)
    of_value = abs(value.item() / want.item() - 1)
    of_grad = ((grad - want_grad).norm() / want_grad.norm()).item()
    return [f'{of_value:.0e}', f'{of_grad:.0e}']


def rounds_for(size: int, rounds: int) -> int:
    """Fewer rounds for large matrices, which take seconds."""
    return max(3, min(rounds, rounds * 40_000 // size))


def main(argv: list[str] | None = None) -> None:
    """Measure, and print two tables."""
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = []
    for B, C in args.shapes:
        logits = args.scale * torch.randn(B, C, device=args.device)
        A = logits.softmax(1).requires_grad_()
        candidates = {'peer': step(lambda A: torch.linalg.matrix_norm(A, 'nuc'), A)}
        for method in args.methods:
            candidates[method] = step(lambda A, m=method: nuclear_norm(A, m), A)
        done = measure(candidates, rounds_for(B * C, args.rounds), 1, True, args.device)
        for method in args.methods:
            timing = pair_row(done[method], done['peer'])
            rows.append([f'{B} x {C}', method, *timing, *errors(A, method)])
    print(f'{machine(args.device)}; softmax of logits of scale {args.scale}.\n')
    header = ('matrix', 'method', *PAIR_HEADER, 'error of value', 'of gradient')
    print(markdown_table(header, rows))

    # As many logits each time, whose gradient is of the same size.
    total = max(args.cap_rows, default=0)
    leaf = torch.randn(total, 80, device=args.device).requires_grad_()
    order = torch.randperm(total, device=args.device)
    loss = BNMLoss(use_sigmoid=True)
    steps = {
        str(B): step(partial(loss, weight=(order < B).float()), leaf)
        for B in args.cap_rows
    }
    if steps:
        done = measure(steps, args.rounds, 1, False, args.device)
        rows = [[name, f'{of.milliseconds:.2f}'] for name, of in done.items()]
        header = (f'foreground rows of {total} x 80', 'BNM term, ms')
        print(f'\n{markdown_table(header, rows)}')


if __name__ == '__main__':
    main()
