"""Time and memory of pairs, ours and its peer, measured alternately in one process."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ['Measurement', 'machine', 'measure', 'pair_row']

PAIR_HEADER = ('ours ms', 'peer ms', 'time ratio', 'ours MiB', 'peer MiB', 'MiB ratio')


class Measurement(NamedTuple):
    """What one candidate cost.

    Attributes:
        seconds: Time of each round.
        peak: Largest number of bytes allocated at one time beyond what was there
            before; None if it was not measured.
    """

    seconds: list[float]
    peak: int | None

    @property
    def milliseconds(self) -> float:
        """Median time in milliseconds."""
        return 1e3 * statistics.median(self.seconds)


def measure(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    memory: bool = True,
    device: str = 'cpu',
) -> dict[str, Measurement]:
    """Time candidates in turns, so that a disturbance hits all of them.

    Each round calls every candidate once, in an order that turns around from round to
    round. Garbage collection waits until the end. On a GPU the clock stops when the
    device is done.

    Args:
        candidates: Functions without arguments, by name.
        rounds: Timed calls of each, > 0.
        warmup: Calls before.
        memory: Whether to measure the memory too, in a call of its own.
        device: Where the functions work, 'cpu' or 'cuda'.

    Returns:
        One measurement a candidate.
    """
    for _ in range(warmup):
        for function in candidates.values():
            function()
    peaks = {
        name: peak_memory(function, device) if memory else None
        for name, function in candidates.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in order:
                _wait(device)
                start = time.perf_counter()
                candidates[name]()
                _wait(device)
                seconds[name].append(time.perf_counter() - start)
            order.reverse()
    finally:
        if collecting:
            gc.enable()
    return {name: Measurement(seconds[name], peaks[name]) for name in candidates}


def peak_memory(function: Callable[[], object], device: str = 'cpu') -> int:
    """Bytes that one call holds at most, beyond what was allocated before.

    On a CPU from the allocations that ``torch.profiler`` records, temporaries inside
    an operator included, workspaces of LAPACK and BLAS not; on a GPU from PyTorch's
    allocator.
    """
    if device == 'cuda':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    changes = [event for event in events if event['name'] == '[memory]']
    changes.sort(key=lambda event: event['ts'])
    held = peak = 0
    for change in changes:
        held += change['args']['Bytes']
        peak = max(peak, held)
    return peak


def pair_row(ours: Measurement, peer: Measurement) -> list[str]:
    """Cells of :data:`PAIR_HEADER`.

    The time ratio is that of the medians, and in brackets the quartiles of the ratios
    of single rounds.
    """
    ratios = [a / b for a, b in zip(ours.seconds, peer.seconds, strict=True)]
    spread = ''
    if len(ratios) > 1:
        low, _, high = statistics.quantiles(ratios, n=4)
        spread = f' ({low:.2f} to {high:.2f})'
    cells = [
        f'{ours.milliseconds:.2f}',
        f'{peer.milliseconds:.2f}',
        f'{ours.milliseconds / peer.milliseconds:.2f}{spread}',
    ]
    if ours.peak is None or peer.peak is None:
        return [*cells, '-', '-', '-']
    ratio = f'{ours.peak / peer.peak:.2f}' if peer.peak else '-'
    return [*cells, f'{ours.peak / 2**20:.2f}', f'{peer.peak / 2**20:.2f}', ratio]


def machine(device: str = 'cpu') -> str:
    """One line that says what ran it."""
    name = platform.machine()
    cpuinfo = Path('/proc/cpuinfo')
    if device == 'cuda':
        name = torch.cuda.get_device_name()
    elif cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        models = [line.split(': ')[1] for line in lines if 'model name' in line]
        name = models[0] if models else name
    threads = f', {torch.get_num_threads()} threads' if device == 'cpu' else ''
    return (
        f'{name}{threads}, PyTorch {torch.__version__}, Python '
        f'{platform.python_version()}'
    )


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()
