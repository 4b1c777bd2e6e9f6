"""Hooks, one a file, and the adapters from the rows of a head to slots."""

from daal_mmdet.hooks.finite_checkpoint_hook import FiniteCheckpointHook
from daal_mmdet.hooks.iteration_seed_hook import IterationSeedHook
from daal_mmdet.hooks.kalman_covariance_hook import KalmanCovarianceHook

__all__ = ['FiniteCheckpointHook', 'IterationSeedHook', 'KalmanCovarianceHook']
