"""Losses, one a file."""

from daal_mmdet.losses.bnm_loss import BNMLoss
from daal_mmdet.losses.daal_loss import DAALFocalLoss, DAALLoss

__all__ = ['BNMLoss', 'DAALFocalLoss', 'DAALLoss']
