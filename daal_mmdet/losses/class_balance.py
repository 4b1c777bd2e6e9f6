"""Class weights from a Kalman filter on the share of each class."""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor

from daal_mmdet import kalman
from daal_mmdet.losses.filter_state import FilterState
from daal_mmdet.validation import check_number

__all__ = ['ClassBalance', 'check_options', 'class_weights']

# The buffers of one entry a class, and an entry that was never measured.
_FILLS = {'share': 0.0, 'variance': 0.0, 'weight': 1.0}
# Soft samples may be less than one in all; their R stays finite.
_LEAST_SAMPLES = 1e-6


def class_weights(
    share: Tensor,
    variance: Tensor,
    tau: float,
    kappa: float,
    floor: float,
    max_weight: float,
) -> Tensor:
    """Weights that favour classes whose share is small or still uncertain.

    ::

        w_c = ( x_max / max(x_c - kappa sqrt(P_c), floor) )^tau   clipped to
              [1, max_weight]

    The lower confidence bound of the share stands below the fraction, so that doubt
    raises a weight and never lowers it.

    Args:
        share: x, (C,), in [0, 1].
        variance: P, (C,), >= 0.
        tau: Strength, >= 0; 0 gives ones.
        kappa: Width of the bound in standard deviations, >= 0.
        floor: Smallest share told apart, > 0.
        max_weight: Largest weight, >= 1.

    Returns:
        (C,), in [1, max_weight]. A single class has nothing to be balanced against and
        gets 1.
    """
    if len(share) < 2:
        return torch.ones_like(share)
    bound = (share - kappa * variance.sqrt()).clamp(min=floor)
    return (share.max() / bound).pow(tau).clamp(1.0, max_weight)


def check_options(options: object) -> None:
    """Raise ``TypeError`` unless they are options of :class:`ClassBalance`, or None."""
    if options is None:
        return
    if not isinstance(options, dict):
        raise TypeError(
            f'class_balance: expected a dict of options or None, got {options!r}'
        )
    allowed = sorted(set(inspect.signature(ClassBalance).parameters) - {'num_classes'})
    for key in options:
        if key not in allowed:
            raise TypeError(
                f'class_balance: unknown option {key!r}; allowed are {allowed}'
            )


class ClassBalance(FilterState):
    """Per-class Kalman filter of the share of foreground samples, and its weights.

    The share of class c follows a random walk and is measured once an iteration by
    z_c = n_c / n with the binomial noise R_c = x_c (1 - x_c) / n: few samples move the
    estimate little, none not at all. It starts from x = 1/C with the variance of a
    single sample.

    State lives in buffers that keep their shape for life. mmdet builds a loss without
    telling it the number of classes, and a model may be copied (EMA), wrapped (DDP) or
    compiled before the first logits show it; so without ``num_classes`` the buffers
    hold ``capacity`` entries, of which the first C are used.

    Args:
        num_classes: C; None if not known yet.
        tau: Strength of the weights, >= 0.
        kappa: Width of the confidence bound in standard deviations, >= 0.
        max_weight: Largest weight, >= 1.
        floor: Smallest share told apart, in (0, 0.5].
        process_noise: Variance of the random walk an iteration, >= 0.

    Attributes:
        share: x, (capacity,).
        variance: P, (capacity,).
        weight: w, (capacity,); ones until the first measurement.
        num_measurements: Measurements taken, scalar int64.
        measured_classes: C of those measurements, scalar int64. State of a checkpoint
            that was trained on another number of classes is not used.

    Raises:
        TypeError, ValueError: If an argument is out of its range; the message names it.
    """

    capacity = 2048

    share: Tensor
    variance: Tensor
    weight: Tensor
    num_measurements: Tensor
    measured_classes: Tensor

    def __init__(
        self,
        num_classes: int | None = None,
        tau: float = 0.5,
        kappa: float = 1.0,
        max_weight: float = 3.0,
        floor: float = 1e-4,
        process_noise: float = 1e-8,
    ) -> None:
        super().__init__()
        check_number('class_balance.tau', tau, low=0)
        check_number('class_balance.kappa', kappa, low=0)
        check_number('class_balance.max_weight', max_weight, low=1)
        check_number('class_balance.floor', floor, above=0, high=0.5)
        check_number('class_balance.process_noise', process_noise, low=0)
        self.tau = tau
        self.kappa = kappa
        self.max_weight = max_weight
        self.floor = floor
        self.process_noise = process_noise
        size = self.capacity if num_classes is None else num_classes
        self.register_buffer('share', torch.zeros(size))
        self.register_buffer('variance', torch.zeros(size))
        self.register_buffer('weight', torch.ones(size))
        self.register_buffer('num_measurements', torch.zeros((), dtype=torch.int64))
        self.register_buffer('measured_classes', torch.zeros((), dtype=torch.int64))

    def restart(self) -> None:
        """Forget all measurements."""
        for name, fill in _FILLS.items():
            getattr(self, name).fill_(fill)
        self.num_measurements.zero_()
        self.measured_classes.zero_()

    def check_room(self, num_classes: int) -> None:
        """Raise ``ValueError`` unless the buffers hold so many classes."""
        capacity = len(self.share)
        if num_classes > capacity:
            raise ValueError(
                f'num_classes: the logits have {num_classes} classes, more than the '
                f'{capacity} that a loss holds unless told; write '
                f'num_classes={num_classes} in its config'
            )

    def reserve(self, num_classes: int) -> None:
        """Make room for more classes, before the model is copied, wrapped or trained.

        Args:
            num_classes: C.
        """
        missing = max(num_classes - len(self.share), 0)
        for name, fill in _FILLS.items():
            setattr(self, name, F.pad(getattr(self, name), (0, missing), value=fill))

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        # The config may have named num_classes there and not here: other room for what
        # is the same state of C classes.
        for name, fill in _FILLS.items():
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.dim() == 1:
                size = len(getattr(self, name))
                fitted = F.pad(saved[:size], (0, max(size - len(saved), 0)), value=fill)
                state_dict[prefix + name] = fitted
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, num_classes: int) -> Tensor:
        """Current weight of each class, (C,); ones until the first measurement."""
        known = self.measured_classes == num_classes
        return torch.where(known, self.weight[:num_classes], 1.0)

    @torch.no_grad()
    def observe(self, counts: Tensor, valid: Tensor) -> None:
        """Step the filter by one iteration.

        Args:
            counts: n_c, foreground samples of each class, (C,).
            valid: Scalar bool; where false the state stays as it is.
        """
        C = len(counts)
        share, variance, weight = (
            buffer[:C] for buffer in (self.share, self.variance, self.weight)
        )
        counts = counts.to(share.dtype)
        n = counts.sum()
        valid = valid & (n > 0)
        fresh = self.measured_classes != C
        prior = 1.0 / C
        x = torch.where(fresh, prior, share)
        P = torch.where(fresh, prior * (1 - prior), variance) + self.process_noise
        binomial = x.clamp(self.floor, 1 - self.floor)
        R = binomial * (1 - binomial) / n.clamp(min=_LEAST_SAMPLES)
        z = counts / torch.where(n > 0, n, 1.0)
        x, P, _ = kalman.scalar_update(x, P, z, R)
        new_weight = class_weights(
            x, P, self.tau, self.kappa, self.floor, self.max_weight
        )
        count = torch.where(fresh, 1, self.num_measurements + 1)
        for buffer, new in (
            (share, x),
            (variance, P),
            (weight, new_weight),
            (self.num_measurements, count),
            (self.measured_classes, torch.full_like(count, C)),
        ):
            torch.where(valid, new, buffer, out=buffer)

    def extra_repr(self) -> str:
        """Options, for ``print(model)``."""
        return (
            f'tau={self.tau}, kappa={self.kappa}, max_weight={self.max_weight}, '
            f'floor={self.floor}, process_noise={self.process_noise}'
        )
