"""Losses, one a file."""

from daal_mmdet.losses.adaptive_dynamic_loss import AdaptiveDynamicLoss
from daal_mmdet.losses.bnm_loss import BNMLoss
from daal_mmdet.losses.counting_loss import CountingLoss
from daal_mmdet.losses.daal_loss import DAALFocalLoss, DAALLoss
from daal_mmdet.losses.kalman_loss import KalmanLoss
from daal_mmdet.losses.uncertainty_aware_loss import UncertaintyAwareLoss
from daal_mmdet.losses.uncertainty_aware_smooth_l1 import UncertaintyAwareSmoothL1

__all__ = [
    'AdaptiveDynamicLoss',
    'BNMLoss',
    'CountingLoss',
    'DAALFocalLoss',
    'DAALLoss',
    'KalmanLoss',
    'UncertaintyAwareLoss',
    'UncertaintyAwareSmoothL1',
]
