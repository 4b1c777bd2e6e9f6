"""UCF_CC_50 with its five folds."""

from __future__ import annotations

from pathlib import Path

from mmdet.registry import DATASETS

from daal_mmdet.counting.crowd_dataset import CrowdDataset
from daal_mmdet.counting.points import read_ucf_cc_50_points
from daal_mmdet.validation import check_choice, check_number

__all__ = ['UCFCC50Dataset']

_IMAGES, _FOLDS = 50, 5


@DATASETS.register_module()
class UCFCC50Dataset(CrowdDataset):
    """Train or test part of one fold of UCF_CC_50.

    (H. Idrees et al., "Multi-source multi-scale counting in extremely dense crowd
    images", CVPR 2013.) The protocol is a five-fold cross validation on 50 images;
    the paper does not list its folds. As usual with this set, fold k tests the ten
    images 10 k + 1 ... 10 k + 10 and trains on the other forty.

    Args:
        data_root: Folder with ``N.jpg`` and ``N_ann.mat``, N = 1 ... 50.
        fold: k, 0 to 4.
        split: 'train', 'test', or 'all' 50 images.
        pipeline: As in :class:`~daal_mmdet.counting.crowd_dataset.CrowdDataset`, like
            the others below.
        indices: Which images.
        test_mode: Whether items are for evaluation.
        lazy_init: Whether reading the files waits.
    """

    read_points = staticmethod(read_ucf_cc_50_points)

    def __init__(
        self,
        data_root: str,
        fold: int = 0,
        split: str = 'train',
        pipeline: list = [],  # noqa: B006 - read, never changed
        indices: int | list[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        check_number('fold', fold, low=0, high=_FOLDS - 1, integer=True)
        check_choice('split', split, ('train', 'test', 'all'))
        self.fold = fold
        self.split = split
        super().__init__(data_root, pipeline, indices, test_mode, lazy_init)

    def list_files(self) -> list[tuple[Path, Path]]:
        """Pairs of an image and its ``.mat`` file, by number."""
        root = Path(self.data_root)
        size = _IMAGES // _FOLDS
        held_out = range(self.fold * size, (self.fold + 1) * size)
        chosen = {
            'train': [i for i in range(_IMAGES) if i not in held_out],
            'test': list(held_out),
            'all': list(range(_IMAGES)),
        }[self.split]
        return [(root / f'{i + 1}.jpg', root / f'{i + 1}_ann.mat') for i in chosen]
