"""What a finished run of a comparison forecasts, and which gains its loss used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

from daal_mmdet.forecasting.gru_forecaster import GRUForecaster
from daal_mmdet.forecasting.series_windows import SeriesWindows
from daal_mmdet.losses.adaptive_dynamic_loss import AdaptiveDynamicLoss
from daal_mmdet.losses.kalman_loss import KalmanLoss

__all__ = ['FinishedRun']


class FinishedRun:
    """A trained model with its data sets.

    Args:
        folder: Folder of the comparison.
        record: Record of the run, as in its ``runs.jsonl``.

    Attributes:
        model: The forecaster with the weights of its checkpoint, in eval mode.
        train: Its training data set.
        test: Its test data set.

    Raises:
        FileNotFoundError: If the run's configuration or checkpoint is gone.
    """

    def __init__(self, folder: Path, record: dict) -> None:
        checkpoint = folder / record['checkpoint']
        dumped = sorted(checkpoint.parent.glob('*.py'))
        if not dumped or not checkpoint.exists():
            raise FileNotFoundError(
                f'{checkpoint.parent}: expected a configuration and {checkpoint.name}'
            )
        config = Config.fromfile(dumped[-1])
        init_default_scope(config.get('default_scope', 'mmdet'))
        self.model: GRUForecaster = MODELS.build(config.model)
        load_checkpoint(
            self.model, str(checkpoint), 'cpu', strict=True, logger='silent'
        )
        self.model.eval()
        self.train: SeriesWindows = DATASETS.build(config.train_dataloader.dataset)
        self.test: SeriesWindows = DATASETS.build(config.test_dataloader.dataset)

    @torch.no_grad()
    def forecasts(self) -> tuple[np.ndarray, np.ndarray]:
        """Forecasts of the test part by windows that do not overlap.

        Returns:
            The step of the first target of each window, (N,), and the forecasts in the
            unit of the series, (N, horizon, C).
        """
        items = [self.test[i] for i in range(0, len(self.test), self.test.horizon)]
        inputs = torch.stack([item['inputs'] for item in items])
        samples = self.model(inputs, mode='predict')
        values = torch.stack([sample.forecast for sample in samples]).double().numpy()
        firsts = [item['data_samples'].first_target for item in items]
        return np.array(firsts), self._in_units(values)

    def targets(self) -> np.ndarray:
        """What the loss saw as truth in the train part, with its noise.

        Returns:
            (T, C), in the unit of the series.
        """
        return self._in_units(self._train_targets().double().numpy())

    def gains(self) -> np.ndarray | None:
        """Gain K_k of the loss along the training targets.

        Returns:
            (T, C) for ``AdaptiveDynamicLoss``, (T, 1) for ``KalmanLoss`` (the mean of
            the diagonal), None for a loss without a gain.
        """
        loss, series = self.model.loss_forecast, self._train_targets()[None]
        if isinstance(loss, AdaptiveDynamicLoss) and loss.gain is None:
            return loss.gains(series).gain[0].numpy()
        if isinstance(loss, KalmanLoss):
            return loss.step_weights(series)[0, :, None].numpy()
        return None

    def _train_targets(self) -> torch.Tensor:
        last = self.train[len(self.train) - 1]['data_samples']
        end = last.first_target + len(last.target)
        return torch.from_numpy(self.train.targets[:end])

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        meta = self.test.metainfo
        return values * meta['std'] + meta['mean']
