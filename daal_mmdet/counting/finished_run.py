"""What a finished run of a comparison logged, and the maps it predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

from daal_mmdet.counting.csrnet import CSRNet
from daal_mmdet.logged_scalars import read_scalars

__all__ = ['FinishedRun']


class FinishedRun:
    """A trained counting model with its held-out images.

    Args:
        folder: Folder of the comparison.
        record: Record of the run, as in its ``runs.jsonl``.

    Attributes:
        names: Names of the held-out images.
        counts: True and predicted number of heads of each image, by name.

    Raises:
        FileNotFoundError: If the run's configuration or checkpoint is gone.
    """

    def __init__(self, folder: Path, record: dict) -> None:
        self.work_dir = folder / record['work_dir']
        dumped = sorted(self.work_dir.glob('*.py'))
        last = self.work_dir / 'last_checkpoint'
        if not dumped or not last.exists():
            raise FileNotFoundError(
                f'{self.work_dir}: expected a configuration and last_checkpoint'
            )
        self._config = Config.fromfile(dumped[-1])
        # It names the place where the run was made; the folder may have moved.
        self._checkpoint = self.work_dir / Path(last.read_text().strip()).name
        self.counts: dict[str, tuple[float, float]] = record['counts']
        self.names = list(self.counts)

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Iterations and values of a logged scalar, (k,) each; empty if not logged."""
        entries = [e for e in read_scalars(self.work_dir).train if name in e]
        return (
            np.array([entry['step'] for entry in entries]),
            np.array([entry[name] for entry in entries], dtype=np.float64),
        )

    @torch.no_grad()
    def predict(self, name: str) -> tuple[Path, np.ndarray, np.ndarray]:
        """Count one of the held-out images.

        Returns:
            Its path, and the true and the predicted map, (h, w).
        """
        init_default_scope(self._config.get('default_scope', 'mmdet'))
        config = {**self._config.model, 'frontend_init_cfg': None}
        model: CSRNet = MODELS.build(config)
        load_checkpoint(
            model, str(self._checkpoint), 'cpu', strict=True, logger='silent'
        )
        model.eval()
        dataset = DATASETS.build(self._config.test_dataloader.dataset)
        item = dataset[self.names.index(name)]
        truth = item['data_samples'].gt_density.numpy()
        batch = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        (sample,) = model.test_step(batch)
        return Path(sample.img_path), truth, sample.pred_density.numpy()
