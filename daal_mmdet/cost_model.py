"""What the losses add to a distributed training, on paper: bytes, memory, time."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ['Cluster', 'Cost', 'Workload', 'cost']

_FLOAT, _INT = 4, 8
# Entries beside the class counts in the sums that DAALLoss exchanges.
_DAAL_TAIL = 4
# Two numbers in double precision.
_WEIGHT = 16
# Counters, and the filter of the task loss, in bytes.
_SCALARS = 128
# Numbers of a box residual.
_BOX = 4


@dataclass(frozen=True)
class Workload:
    """A detector and a data set, as far as they enter the cost.

    Args:
        name: Shown in tables.
        num_classes: C.
        num_parameters: Trained weights of the detector.
        positives: Positive anchors or RoIs of one process in an iteration.
        slots: Slots of the covariance bank: level x cell x template, or level x class.
        groups: (level, template) pairs of the bank.
        step_seconds: Time of a step on one GPU, without the exchange.
    """

    name: str
    num_classes: int
    num_parameters: int
    positives: int
    slots: int
    groups: int
    step_seconds: float = 0.2


@dataclass(frozen=True)
class Cluster:
    """Links between the processes.

    Args:
        gpus_per_node: GPUs that share a node's fast links.
        node_bandwidth: Bytes a second between two GPUs of a node.
        network_bandwidth: Bytes a second between two nodes, for each GPU.
        latency: Seconds that each message of a collective takes besides.
    """

    gpus_per_node: int = 8
    node_bandwidth: float = 200e9
    network_bandwidth: float = 12.5e9
    latency: float = 10e-6


@dataclass(frozen=True)
class Cost:
    """What a process sends in an iteration, keeps in memory, and waits for.

    Attributes:
        gradient_bytes: Gradients that DistributedDataParallel exchanges.
        loss_bytes: Sums that DAALLoss exchanges, one all-reduce.
        residual_bytes: Residuals and slots that the covariance hook gathers, from one
            process; each receives those of all others.
        weight_bytes: Sum and number of the box weights, one all-reduce.
        filter_bytes: State of the filters of DAALLoss and the bank.
        plain_seconds: A step without either.
        added_seconds: What they add to it.
    """

    gradient_bytes: int
    loss_bytes: int
    residual_bytes: int
    weight_bytes: int
    filter_bytes: int
    plain_seconds: float
    added_seconds: float


def cost(workload: Workload, num_gpus: int, cluster: Cluster | None = None) -> Cost:
    """Estimate the cost of a step.

    A ring all-reduce of n bytes on g processes takes ``2 (g - 1) / g * n / bandwidth``
    and ``2 (g - 1)`` messages; libraries use a tree for small ones, ``2 log2 g``
    messages, which is what the small collectives are charged here. An all-gather sends
    ``(g - 1) n``. The bandwidth is that of the slowest link on the way. What the
    filters compute is not in it: that is a few kernels a step, measured elsewhere.

    Args:
        workload: The detector and the data.
        num_gpus: Processes, one a GPU, > 0.
        cluster: The links; None for the defaults.

    Raises:
        ValueError: If ``num_gpus`` is not positive.
    """
    if num_gpus < 1:
        raise ValueError(f'num_gpus: expected a value >= 1, got {num_gpus}')
    links = cluster or Cluster()
    bandwidth = (
        links.node_bandwidth
        if num_gpus <= links.gpus_per_node
        else links.network_bandwidth
    )
    C = workload.num_classes
    gradient = _FLOAT * workload.num_parameters
    loss = _FLOAT * (C + _DAAL_TAIL)
    # The number of residuals, then slots (int64) and residuals (float32), padded to
    # those of the process that has most.
    residual = _INT + workload.positives * (_INT + _BOX * _FLOAT)

    # DAALLoss: share, variance, weight and sums of each class; the scalars.
    loss_state = _FLOAT * (4 * C + _DAAL_TAIL) + _SCALARS
    # The bank with diagonal covariances. A slot: mean, covariance and sum of the noise,
    # its count; visits, time of the last one, group. A (level, template): sums of the
    # same three and of log det, two counts; its level.
    slot = _FLOAT * (3 * _BOX + 1) + 3 * _INT
    group = _FLOAT * (3 * _BOX + 3) + _INT
    state = loss_state + workload.slots * slot + workload.groups * group

    ring = 2 * (num_gpus - 1) / num_gpus
    hops = 2 * math.ceil(math.log2(num_gpus)) if num_gpus > 1 else 0
    plain = workload.step_seconds + ring * gradient / bandwidth
    added = ring * loss / bandwidth + hops * links.latency
    added += (num_gpus - 1) * residual / bandwidth + 3 * hops / 2 * links.latency
    added += ring * _WEIGHT / bandwidth + hops * links.latency
    return Cost(gradient, loss, residual, _WEIGHT, state, plain, added)
