"""Tell another process how far a training is."""

from __future__ import annotations

import time
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from daal_mmdet.whole_file import write_whole

__all__ = ['ProgressFileHook', 'read_progress']

_SECONDS_BETWEEN_WRITES = 1.0


@HOOKS.register_module()
class ProgressFileHook(Hook):
    """Keep the finished share of the training in a file.

    Args:
        path: The file; replaced as a whole, so that a reader sees a number or none.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._written_at = float('-inf')

    def before_train(self, runner: Runner) -> None:
        """Write where a resumed training starts."""
        self._write(runner.iter / runner.max_iters)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Write, at most once a second."""
        if time.monotonic() - self._written_at >= _SECONDS_BETWEEN_WRITES:
            self._write((runner.iter + 1) / runner.max_iters)

    def after_train(self, runner: Runner) -> None:
        """Write that the training is finished."""
        self._write(1.0)

    def _write(self, share: float) -> None:
        self._written_at = time.monotonic()
        write_whole(self.path, f'{share:.6f}')


def read_progress(path: Path) -> float:
    """Share that :class:`ProgressFileHook` wrote; 0 if it wrote none."""
    return float(path.read_text()) if path.is_file() else 0.0
