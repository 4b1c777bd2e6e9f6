"""Covariance filters as a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.runner import CheckpointLoader

from daal_mmdet.covariance_bank import CovarianceBank
from daal_mmdet.hooks.kalman_covariance_hook import CHECKPOINT_KEY

__all__ = ['SavedCovariance']


class SavedCovariance:
    """The filters of one loss.

    Args:
        name: Where the loss stands in the model.
        state: Its entry in the checkpoint.
        classes: Classes of the data set.

    Attributes:
        name: As above.
        bank: The filters.
        template_names: The classes where they are the templates (RoI heads), else None.
    """

    def __init__(self, name: str, state: dict, classes: Sequence[str] = ()) -> None:
        self.name = name
        self.bank = CovarianceBank(**state['options'])
        self.bank.load_state_dict(state)
        by_class = all(level == (len(classes), 1, 1) for level in self.bank.levels)
        self.template_names = list(classes) if by_class else None

    @classmethod
    def load(cls, path: Path) -> list[SavedCovariance]:
        """Read the filters of a checkpoint, of each loss that was called.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no filters.
        """
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such checkpoint')
        checkpoint = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
        states = {
            name: state
            for name, state in checkpoint.get(CHECKPOINT_KEY, {}).items()
            if state['keys']
        }
        if not states:
            raise ValueError(
                f'{path}: holds no covariance; train with '
                "custom_hooks = [dict(type='KalmanCovarianceHook')]"
            )
        classes = checkpoint.get('meta', {}).get('dataset_meta', {}).get('classes', ())
        return [cls(name, state, classes) for name, state in states.items()]

    def deviations(self) -> list[np.ndarray]:
        """det(P)^(1/8), the geometric mean of the four standard deviations.

        Returns:
            For each level (height, width, templates).
        """
        log_det = self.bank.log_det(torch.arange(len(self.bank)))
        return self._by_level((log_det / (2 * self.bank.size)).exp())

    def measured(self) -> list[np.ndarray]:
        """Whether each slot was ever measured, shaped as :meth:`deviations`."""
        return self._by_level(self.bank.visits > 0)

    def _by_level(self, values: torch.Tensor) -> list[np.ndarray]:
        levels = self.bank.levels
        parts = values.split([t * h * w for t, h, w in levels])
        return [
            part.numpy().reshape(h, w, t)
            for part, (t, h, w) in zip(parts, levels, strict=True)
        ]
