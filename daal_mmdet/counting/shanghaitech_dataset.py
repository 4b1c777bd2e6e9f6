"""ShanghaiTech, parts A and B."""

from __future__ import annotations

import re
from pathlib import Path

from mmdet.registry import DATASETS

from daal_mmdet.counting.crowd_dataset import CrowdDataset
from daal_mmdet.counting.points import read_shanghaitech_points
from daal_mmdet.validation import check_choice

__all__ = ['ShanghaiTechDataset']


@DATASETS.register_module()
class ShanghaiTechDataset(CrowdDataset):
    """One part of ShanghaiTech in its published layout.

    (Y. Zhang et al., "Single-image crowd counting via multi-column convolutional neural
    network", CVPR 2016.) ``data_root`` is the folder of part A or B, with
    ``{train,test}_data/images/IMG_N.jpg`` and
    ``{train,test}_data/ground-truth/GT_IMG_N.mat``; some copies call the latter folder
    ``ground_truth``. Images come in the order of N.

    Args:
        data_root: Folder of the part, as ``data/ShanghaiTech/part_B_final``.
        split: 'train' or 'test'.
        pipeline: As in :class:`~daal_mmdet.counting.crowd_dataset.CrowdDataset`, like
            the others below.
        indices: Which images.
        test_mode: Whether items are for evaluation.
        lazy_init: Whether reading the files waits.
    """

    read_points = staticmethod(read_shanghaitech_points)

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        pipeline: list = [],  # noqa: B006 - read, never changed
        indices: int | list[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        check_choice('split', split, ('train', 'test'))
        self.split = split
        super().__init__(data_root, pipeline, indices, test_mode, lazy_init)

    def list_files(self) -> list[tuple[Path, Path]]:
        """Pairs of an image and its ``.mat`` file, by number."""
        folder = Path(self.data_root) / f'{self.split}_data'
        points = folder / 'ground-truth'
        if not points.is_dir():
            points = folder / 'ground_truth'
        numbered = {}
        for path in (folder / 'images').glob('IMG_*.jpg'):
            match = re.fullmatch(r'IMG_(\d+)', path.stem)
            if match:
                numbered[int(match[1])] = path
        if not numbered:
            raise FileNotFoundError(
                f'data_root: there is no IMG_N.jpg in {str(folder / "images")!r}'
            )
        return [
            (numbered[n], points / f'GT_{numbered[n].stem}.mat')
            for n in sorted(numbered)
        ]
