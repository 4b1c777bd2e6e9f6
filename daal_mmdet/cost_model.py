"""What the losses add to a distributed training, on paper: bytes, memory, time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn as nn

__all__ = ['Cluster', 'Cost', 'Workload', 'cost', 'cost_table', 'workload_of']

_FLOAT, _INT = 4, 8
# Entries beside the class counts in the sums that DAALLoss exchanges.
_DAAL_TAIL = 4
# Sum and number of the weights of a level, in double precision.
_LEVEL_WEIGHTS = 16
# Counters, the values shown, and the filter of the task loss, in bytes.
_SCALARS = 96
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
        levels: Levels of the bank.
        step_seconds: Time of a step on one GPU, without the exchange.
    """

    name: str
    num_classes: int
    num_parameters: int
    positives: int
    slots: int
    groups: int
    levels: int
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
        weight_bytes: Sum and number of the box weights of each level, one all-reduce.
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
    weight = workload.levels * _LEVEL_WEIGHTS

    # DAALLoss: share, variance, weight and sums of each class; the scalars, with BNM.
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
    added += ring * weight / bandwidth + hops * links.latency
    return Cost(gradient, loss, residual, weight, state, plain, added)


def workload_of(
    name: str,
    model: nn.Module,
    image_size: tuple[int, int],
    positives: int = 256,
    step_seconds: float = 0.2,
) -> Workload:
    """Read from a detector what enters the cost.

    Args:
        name: Shown in tables.
        model: A detector of mmdet whose ``bbox_head`` has a ``prior_generator``, or
            whose ``roi_head`` has one ``bbox_head`` and pools from the levels of a
            ``bbox_roi_extractor``.
        image_size: (height, width) of the batches, padded, in pixels. The filters keep
            the grids of the first batch.
        positives: As in :class:`Workload`.
        step_seconds: As in :class:`Workload`.

    Raises:
        ValueError: If the model has no such head.
    """
    roi_head = getattr(model, 'roi_head', None)
    head = getattr(model if roi_head is None else roi_head, 'bbox_head', None)
    extractor = getattr(roi_head, 'bbox_roi_extractor', None)
    generator = getattr(head, 'prior_generator', None)
    if hasattr(extractor, 'featmap_strides') and hasattr(head, 'num_classes'):
        # A slot is a level and a class.
        levels = len(extractor.featmap_strides)
        slots = groups = levels * head.num_classes
    elif roi_head is None and generator is not None:
        height, width = image_size
        levels = len(generator.strides)
        slots, groups = 0, sum(generator.num_base_priors)
        for (x, y), templates in zip(
            generator.strides, generator.num_base_priors, strict=True
        ):
            slots += math.ceil(height / y) * math.ceil(width / x) * templates
    else:
        raise ValueError(
            f'{name}: expected a bbox_head with priors, or a roi_head with one '
            f'bbox_head and its extractor, got {type(model).__name__}'
        )
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Workload(
        name=name,
        num_classes=head.num_classes,
        num_parameters=parameters,
        positives=positives,
        slots=slots,
        groups=groups,
        levels=levels,
        step_seconds=step_seconds,
    )


def cost_table(
    workloads: Sequence[Workload],
    num_gpus: Sequence[int],
    cluster: Cluster | None = None,
) -> str:
    """Costs as a table in Markdown, one line a workload.

    Args:
        workloads: Detectors and data.
        num_gpus: Numbers of processes; each gets a column of the time of a whole step,
            and what of it is added.
        cluster: The links; None for the defaults.
    """
    head = ['', 'gradients', 'DAALLoss', 'residuals', 'box weights', 'filters']
    head += [f'{number} GPUs' if number > 1 else '1 GPU' for number in num_gpus]
    lines = [head, ['---'] * len(head)]
    for workload in workloads:
        costs = [cost(workload, number, cluster) for number in num_gpus]
        sizes = costs[0]
        line = [workload.name, f'{sizes.gradient_bytes / 1e6:.0f} MB']
        line += [f'{sizes.loss_bytes} B', f'{sizes.residual_bytes} B']
        line += [f'{sizes.weight_bytes} B', f'{sizes.filter_bytes / 1e6:.2f} MB']
        line += [
            f'{1e3 * (c.plain_seconds + c.added_seconds):.1f} ms '
            f'(+{1e3 * c.added_seconds:.2f}, {c.added_seconds / c.plain_seconds:.1%})'
            for c in costs
        ]
        lines.append(line)
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
