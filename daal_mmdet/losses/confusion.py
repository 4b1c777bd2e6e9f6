"""Cross entropy among the classes of rows that hold an object."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from daal_mmdet.losses.focal import softmax_focal_soft_rows

__all__ = ['confusion_loss']


def confusion_loss(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """How far rows that hold an object are taken for objects of other classes.

    ::

        sum_i sum_c v_c t_ic * -log softmax(s_i)_c

    over the C classes, without background. A sigmoid focal loss hardly sees such
    confusions: where an object scores p = 0.2 as another class, p^2 leaves 4 % of the
    gradient, and rows of the background outnumber those of objects by far. Few classes
    suffer most, since there are more objects of the others to be taken for theirs. How
    high a row scores as a whole does not enter, so that no class is held down by it.

    Args:
        logits: s, (K, C), foreground classes only.
        targets: t, (K, C), >= 0: one-hot, soft, or times the weight of the row.
        mask: (K,), bool, the rows that count; all if None.
        class_weight: v, (C,), >= 0; ones if None.

    Returns:
        The sum, a scalar in float32 at least. 0, with a zero gradient, where no row
        counts.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p = F.log_softmax(logits, dim=1, dtype=dtype)
    rows = softmax_focal_soft_rows(log_p, targets, class_weight=class_weight)
    if mask is not None:
        rows = torch.where(mask, rows, 0.0)
    return rows.sum()
