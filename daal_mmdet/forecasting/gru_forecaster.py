"""A small recurrent forecaster."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from daal_mmdet.validation import check_choice, check_number

__all__ = ['GRUForecaster']

_MODES = ('tensor', 'loss', 'predict')


@MODELS.register_module()
class GRUForecaster(BaseModel):
    """GRU that forecasts the next value at every step, and rolls itself out.

    With h_k the state of the GRU after input y_k::

        y^_{k+1} = y_k + W h_k + b

    so an untrained head is the naive forecast. It trains on the next value of every
    step of a window (teacher forcing). To forecast further its forecasts become its
    inputs.

    Args:
        channels: C, values per step, > 0.
        hidden_size: Size of the GRU's state, > 0.
        num_layers: Number of stacked GRUs, > 0.
        horizon: Steps that ``predict`` forecasts, > 0.
        loss: Config of the loss, called as ``loss(forecasts, targets)`` with two
            (B, T, C) tensors in the order of time: ``MSELoss``, ``KalmanLoss``,
            ``AdaptiveDynamicLoss`` ...
        data_preprocessor: See :class:`mmengine.model.BaseModel`.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        channels: int = 1,
        hidden_size: int = 32,
        num_layers: int = 1,
        horizon: int = 11,
        loss: dict = dict(type='MSELoss'),  # noqa: B006 - read, never changed
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        for key, value in (
            ('channels', channels),
            ('hidden_size', hidden_size),
            ('num_layers', num_layers),
            ('horizon', horizon),
        ):
            check_number(key, value, low=1, integer=True)
        self.channels = channels
        self.horizon = horizon
        self.gru = nn.GRU(channels, hidden_size, num_layers, batch_first=True)
        self.head = nn.Linear(hidden_size, channels)
        self.loss_forecast = MODELS.build(loss)

    def forward(
        self,
        inputs: Tensor | Sequence[Tensor],
        data_samples: Sequence[BaseDataElement] | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Run the network.

        Args:
            inputs: Standardised values, (B, T, C), or B tensors (T, C).
            data_samples: B elements; mode 'loss' reads their ``target``, (T, C).
            mode: 'tensor', 'loss' or 'predict'.

        Returns:
            'tensor': forecasts of the value after each input, (B, T, C). 'loss': a dict
            with ``loss_forecast``. 'predict': the elements (new ones without
            ``data_samples``) with ``forecast``, (horizon, C), standardised.

        Raises:
            ValueError: If ``mode`` is unknown, a shape does not fit, or mode 'loss'
                gets no targets.
        """
        check_choice('mode', mode, _MODES)
        if not isinstance(inputs, Tensor):
            inputs = torch.stack(list(inputs))
        if inputs.dim() != 3 or inputs.shape[-1] != self.channels:
            raise ValueError(
                f'inputs: expected shape (B, T, {self.channels}), got '
                f'{tuple(inputs.shape)}'
            )
        if mode == 'tensor':
            return self._next_values(inputs)[0]
        if mode == 'predict':
            return self._predict(inputs, data_samples)
        if data_samples is None:
            raise ValueError("data_samples: mode 'loss' needs targets, got None")
        targets = torch.stack([sample.target for sample in data_samples])
        if targets.shape != inputs.shape:
            raise ValueError(
                "target: mode 'loss' needs the value after each input, expected shape "
                f'{tuple(inputs.shape)}, got {tuple(targets.shape)}; build the '
                'training data set with test_mode=False'
            )
        return dict(
            loss_forecast=self.loss_forecast(self._next_values(inputs)[0], targets)
        )

    def _next_values(
        self, inputs: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        states, hidden = self.gru(inputs, hidden)
        return inputs + self.head(states), hidden

    def _predict(
        self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None
    ) -> list[BaseDataElement]:
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in inputs]
        forecasts, hidden = self._next_values(inputs)
        steps = [forecasts[:, -1:]]
        for _ in range(self.horizon - 1):
            following, hidden = self._next_values(steps[-1], hidden)
            steps.append(following)
        for sample, forecast in zip(data_samples, torch.cat(steps, 1), strict=True):
            sample.forecast = forecast
        return list(data_samples)
