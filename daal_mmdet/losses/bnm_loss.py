"""Batch nuclear-norm maximization (BNM)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from daal_mmdet.cuda_replay import Replay, replayable, value_with_gradient
from daal_mmdet.nuclear_norm import METHODS, nuclear_norm
from daal_mmdet.validation import check_choice, check_flag, check_number

__all__ = ['NORMALIZATIONS', 'BNMLoss', 'batch_nuclear_norm_loss', 'choose_rows']

NORMALIZATIONS = ('bound', 'batch', 'rank')
# Those that neither read device values nor call a solver.
_REPLAYED_METHODS = ('auto', 'newton_schulz', 'fast')
_replay = Replay()


def choose_rows(mask: Tensor, max_rows: int) -> tuple[Tensor, Tensor]:
    """Indices of the marked rows, evenly thinned out to at most ``max_rows``.

    On a CPU exactly those. Elsewhere their number is not known to the host without
    waiting for the device, and never to a compiled graph, so ``min(N, max_rows)``
    indices come back, of which the first ``taken.sum()`` are the chosen ones.

    Args:
        mask: (N,), bool.
        max_rows: Cap on the number of rows, > 0.

    Returns:
        Indices (K,), int64, and ``taken`` (K,), bool, which of them are marked ones.
    """
    if mask.device.type != 'cpu' or torch.compiler.is_compiling():
        return _choose_rows_without_sync(mask, max_rows)
    index = mask.nonzero().squeeze(1)
    if len(index) > max_rows:
        index = index[torch.arange(max_rows) * len(index) // max_rows]
    return index, torch.ones_like(index, dtype=torch.bool)


def _choose_rows_without_sync(mask: Tensor, max_rows: int) -> tuple[Tensor, Tensor]:
    rank = mask.cumsum(0)
    count = rank[-1:] if len(rank) else rank.new_zeros(1)
    slots = torch.arange(min(len(mask), max_rows), device=mask.device)
    # The j-th taken row is the marked one of rank j * count / max_rows, j if all fit.
    wanted = slots * count.clamp(min=max_rows) // max_rows
    taken = slots < count
    index = torch.searchsorted(rank, wanted + 1).clamp(max=max(len(mask) - 1, 0))
    return index, taken


def batch_nuclear_norm_loss(
    logits: Tensor,
    mask: Tensor | None = None,
    normalization: str = 'bound',
    method: str = 'auto',
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

    Returns:
        A scalar in float32 at least. 0, with a zero gradient, where no row counts.

    Raises:
        ValueError: If ``normalization`` or ``method`` is unknown.
    """
    check_choice('normalization', normalization, NORMALIZATIONS)
    check_choice('method', method, METHODS)
    settings = normalization, method
    loss = partial(_normalized_norm, normalization=normalization, method=method)
    differentiated = torch.is_grad_enabled() and logits.requires_grad
    replays = method in _REPLAYED_METHODS and replayable(logits)
    if mask is None or not differentiated or not replays:
        return loss(logits, mask)
    return value_with_gradient(_replay, loss, logits, (mask,), settings)


def _normalized_norm(
    logits: Tensor, mask: Tensor | None, normalization: str, method: str
) -> Tensor:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    A = F.softmax(logits, dim=1, dtype=dtype)
    if mask is None:
        B = A.new_full((), len(logits))
    else:
        B = mask.sum().to(dtype)
        # Rows of zeros leave the singular values as they are.
        A = torch.where(mask.unsqueeze(1), A, 0.0)
    norm = nuclear_norm(A, method)
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
        index, taken = choose_rows(mask, self.max_rows)
        loss = batch_nuclear_norm_loss(
            logits[index], taken, self.normalization, self.method
        )
        return self.loss_weight * loss
