"""Batch nuclear-norm maximization (BNM)."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from daal_mmdet.losses.validation import check_choice, check_flag, check_number
from daal_mmdet.nuclear_norm import METHODS, nuclear_norm

__all__ = ['NORMALIZATIONS', 'BNMLoss', 'batch_nuclear_norm_loss', 'gather_rows']

NORMALIZATIONS = ('bound', 'batch', 'rank')


def gather_rows(matrix: Tensor, mask: Tensor, max_rows: int) -> tuple[Tensor, Tensor]:
    """Take the marked rows of a matrix, evenly thinned out to at most ``max_rows``.

    On a CPU exactly the taken rows come back. Elsewhere their number is not known to
    the host without waiting for the device, and never to a compiled graph, so
    ``min(N, max_rows)`` rows come back, of which the first ``taken.sum()`` are the
    taken ones.

    Args:
        matrix: (N, C).
        mask: (N,), bool.
        max_rows: Cap on the number of rows, > 0.

    Returns:
        Rows (K, C), and ``taken`` (K,), bool, which of them are marked ones.
    """
    if matrix.device.type != 'cpu' or torch.compiler.is_compiling():
        return _gather_rows_without_sync(matrix, mask, max_rows)
    index = mask.nonzero().squeeze(1)
    if len(index) > max_rows:
        index = index[torch.arange(max_rows) * len(index) // max_rows]
    return matrix[index], torch.ones_like(index, dtype=torch.bool)


def _gather_rows_without_sync(
    matrix: Tensor, mask: Tensor, max_rows: int
) -> tuple[Tensor, Tensor]:
    rank = mask.cumsum(0)
    count = rank[-1:] if len(rank) else rank.new_zeros(1)
    slots = torch.arange(min(len(mask), max_rows), device=mask.device)
    # The j-th taken row is the marked one of rank j * count / max_rows, j if all fit.
    wanted = torch.where(count > max_rows, slots * count // max_rows, slots)
    taken = slots < count
    index = torch.searchsorted(rank, wanted + 1).clamp(max=max(len(mask) - 1, 0))
    return matrix[index], taken


def batch_nuclear_norm_loss(
    logits: Tensor,
    mask: Tensor | None = None,
    normalization: str = 'bound',
    method: str = 'auto',
    max_rows: int = 1024,
) -> Tensor:
    """Negative, normalised nuclear norm of the class probabilities of a batch.

    With A = softmax(logits) over the B marked rows (S. Cui et al., "Towards
    discriminability and diversity: batch nuclear-norm maximization under label
    insufficient situations", CVPR 2020)::

        'bound'    1 - ||A||_* / sqrt(B * min(B, C))     in [0, 1)
        'batch'    -||A||_* / B                          their BNM and UODR code
        'rank'     -||A||_* / min(B, C)                  their DA code

    ||A||_F <= sqrt(B) and rank(A) <= min(B, C) give the bound; 0 is reached by
    confident rows spread evenly over the classes. A *small* loss therefore means
    predictions that are both certain and diverse.

    Args:
        logits: (N, C), foreground classes only.
        mask: (N,), bool, the rows that count; all if None.
        normalization: One of :data:`NORMALIZATIONS`.
        method: How the norm is computed, see
            :func:`daal_mmdet.nuclear_norm.nuclear_norm`.
        max_rows: More rows than this are thinned out evenly, > 0.

    Returns:
        A scalar in float32 at least. 0, with a zero gradient, where no row counts.

    Raises:
        ValueError: If ``normalization`` or ``method`` is unknown.
    """
    check_choice('normalization', normalization, NORMALIZATIONS)
    if mask is None:
        mask = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    rows, taken = gather_rows(logits, mask, max_rows)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    # Rows of zeros leave the singular values as they are.
    A = torch.where(taken.unsqueeze(1), F.softmax(rows, dim=1, dtype=dtype), 0.0)
    norm = nuclear_norm(A, method)
    B = taken.sum().to(dtype)
    rank = B.clamp(max=logits.shape[1])
    safe_B, safe_rank = B.clamp(min=1), rank.clamp(min=1)
    if normalization == 'bound':
        loss = 1 - norm / (safe_B * safe_rank).sqrt()
    elif normalization == 'batch':
        loss = -norm / safe_B
    else:
        loss = -norm / safe_rank
    return torch.where(B > 0, loss, norm)


@MODELS.register_module()
class BNMLoss(nn.Module):
    """Batch nuclear-norm maximization alone, for labelled or unlabelled predictions.

    See :func:`batch_nuclear_norm_loss` for the formula. The authors' repository uses
    three normalisations, so one weight means three things; ``'bound'`` does not depend
    on batch size or class count.

    Args:
        loss_weight: Factor of the loss, >= 0.
        normalization: ``'bound'``, ``'batch'`` or ``'rank'``.
        method: ``'auto'``, ``'svd'``, ``'gram'``, ``'newton_schulz'`` or ``'fast'``.
        max_rows: More rows than this are thinned out evenly, > 0.
        use_sigmoid: Whether logits have C columns. If False they have C + 1, and the
            last, background, is left out.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        normalization: str = 'bound',
        method: str = 'auto',
        max_rows: int = 1024,
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        check_number('loss_weight', loss_weight, low=0)
        check_choice('normalization', normalization, NORMALIZATIONS)
        check_choice('method', method, METHODS)
        check_number('max_rows', max_rows, low=1, integer=True)
        check_flag('use_sigmoid', use_sigmoid)
        self.loss_weight = loss_weight
        self.normalization = normalization
        self.method = method
        self.max_rows = max_rows
        self.use_sigmoid = use_sigmoid

    def forward(
        self, pred: Tensor, target: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of a batch of predictions.

        Args:
            pred: Logits, (N, C) if ``use_sigmoid``, else (N, C + 1).
            target: Labels (N,) in 0..C, of which C (background) does not count; every
                row counts if None.
            weight: (N,); a row counts where it is positive.

        Returns:
            A scalar; 0 with a zero gradient where no row counts.

        Raises:
            ValueError: If a shape does not fit.
        """
        if pred.dim() != 2:
            raise ValueError(
                f'pred: expected logits of shape (N, C), got {tuple(pred.shape)}'
            )
        logits = pred if self.use_sigmoid else pred[:, :-1]
        mask = torch.ones(len(pred), dtype=torch.bool, device=pred.device)
        for name, rows in (('target', target), ('weight', weight)):
            if rows is not None and rows.shape != (len(pred),):
                raise ValueError(
                    f'{name}: expected shape ({len(pred)},), got {tuple(rows.shape)}'
                )
        if target is not None:
            mask &= (target >= 0) & (target < logits.shape[1])
        if weight is not None:
            mask &= weight > 0
        loss = batch_nuclear_norm_loss(
            logits, mask, self.normalization, self.method, self.max_rows
        )
        return self.loss_weight * loss
