"""What the crowd-counting data sets share: an image and its head points."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from PIL import UnidentifiedImageError

from daal_mmdet.counting.points import move_inside
from daal_mmdet.datasets.image_header import read_image_header

__all__ = ['CrowdDataset']


class CrowdDataset(BaseDataset):
    """Images with a point for each head.

    An item, before the pipeline, holds ``img_path``, ``img_id`` (the name of the file
    without its ending), ``height``, ``width`` and ``gt_points``, (n, 2) float64, with
    pixel centres at whole numbers. Points up to a pixel outside the image are moved
    onto its border, those further away left out, with a warning that names the file:
    nobody can see those heads.

    A subclass lists the files in :meth:`list_files` and names the function that reads
    the points in :attr:`read_points`.

    Args:
        data_root: Folder of the data set.
        pipeline: Transforms.
        indices: Use only these of the images, or so many first ones; None for all.
        test_mode: Whether items are for evaluation.
        lazy_init: See :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If a folder or a file is missing.
        ValueError: If a file is damaged, an image has an EXIF mark to be turned by, or
            ``indices`` lie outside the data set; the message names it.
    """

    read_points: Callable[[Path], np.ndarray]

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[dict | Callable] = (),
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self._indices_option = indices
        super().__init__(
            data_root=data_root,
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def list_files(self) -> list[tuple[Path, Path]]:
        """Pairs of an image and its points' file, in order."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read sizes and points of the images."""
        root = Path(self.data_root)
        if not root.is_dir():
            raise FileNotFoundError(f'data_root: there is no folder {str(root)!r}')
        files = self.list_files()
        items, dropped = [], {}
        for image, annotation in _choose(files, self._indices_option):
            width, height = _image_size(image)
            points = type(self).read_points(annotation)
            kept = move_inside(points, height, width)
            if len(kept) < len(points):
                dropped[annotation.name] = len(points) - len(kept)
            items.append(
                dict(
                    img_path=str(image),
                    img_id=image.stem,
                    height=height,
                    width=width,
                    gt_points=kept,
                )
            )
        if dropped:
            print_log(
                f'{root}: left out points that lie outside their image: {dropped}',
                logger='current',
                level=logging.WARNING,
            )
        return items


def _choose(
    files: list[tuple[Path, Path]], indices: int | Sequence[int] | None
) -> list[tuple[Path, Path]]:
    if indices is None:
        return files
    wanted = range(indices) if isinstance(indices, int) else indices
    outside = [i for i in wanted if not 0 <= i < len(files)]
    if outside or not wanted:
        raise ValueError(
            f'indices: expected numbers from 0 to {len(files) - 1}, got '
            f'{outside or indices}'
        )
    return [files[i] for i in wanted]


def _image_size(path: Path) -> tuple[int, int]:
    """Width and height, from the head of the file.

    OpenCV turns and mirrors images by their EXIF mark; points would not follow, and
    nobody knows how they saw the image who marked the heads.
    """
    if not path.is_file():
        raise FileNotFoundError(f'image: there is no file {str(path)!r}')
    try:
        width, height, orientation = read_image_header(path)
    except UnidentifiedImageError as error:
        raise ValueError(f'{path}: is no readable image') from error
    if orientation != 1:
        raise ValueError(
            f'{path}: has the EXIF orientation {orientation}, by which it would be '
            'turned away from its points; save it without, the way the points belong'
        )
    return width, height
