"""Loading images, of which a few may be missing or broken."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log
from PIL import Image

from daal_mmdet.validation import check_number

__all__ = ['LoadImageOrSkip']

# The end of a whole file; some have more behind it, of cameras and editors.
_ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89P': b'IEND\xaeB`\x82'}


@TRANSFORMS.register_module()
class LoadImageOrSkip(LoadImageFromFile):
    """``LoadImageFromFile`` for training, which passes over images it can't read.

    An image that is missing, is none, or is only the first part of one stops a training
    hours after its start. This transform returns None for it, at which mmengine's data
    sets take another image at random, and says so once a file (and worker process),
    with the number of such files so far. More than ``max_skipped`` of them stop the
    training after all: a data set with so many is not the one that was meant.

    OpenCV fills what is missing of a JPEG with grey and says nothing; here a file
    without a proper end is decoded once more by Pillow, which does.

    Belongs in a training pipeline. A validation that leaves out images would measure
    another data set, so there ``LoadImageFromFile`` with its error is right.

    Args:
        max_skipped: Files to pass over in one process, >= 0. Worker processes live for
            an epoch, or with ``persistent_workers`` for the training.
        to_float32: As in ``LoadImageFromFile``, like the others below.
        color_type: The channels.
        imdecode_backend: What decodes.
        backend_args: Where the files are.

    Raises:
        TypeError, ValueError: If ``max_skipped`` is no integer or negative.
        OSError: In training, when one file too many can't be read; the message names
            it.
    """

    def __init__(
        self,
        max_skipped: int = 100,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            to_float32, color_type, imdecode_backend, backend_args=backend_args
        )
        check_number('max_skipped', max_skipped, low=0, integer=True)
        self.max_skipped = max_skipped
        self.skipped: dict[str, str] = {}

    def transform(self, results: dict) -> dict | None:
        """Load the image that ``results['img_path']`` names.

        Returns:
            The results with the image, or None if it can't be read.
        """
        path = results['img_path']
        if path in self.skipped:
            return None
        try:
            loaded = super().transform(results)
            if loaded is None:
                raise OSError('it does not decode')
            _require_the_end(path)
        # mmcv asserts that OpenCV made an image of the bytes.
        except (OSError, AssertionError, cv2.error, ValueError) as error:
            self._skip(path, f'{type(error).__name__}: {error}')
            return None
        return loaded

    def _skip(self, path: str, reason: str) -> None:
        self.skipped[path] = reason
        count = len(self.skipped)
        if count > self.max_skipped:
            raise OSError(
                f"{path} can't be read ({reason}), and {self.max_skipped} images "
                'before it could not either (max_skipped): mend the data set'
            )
        print_log(
            f"left out: {path} can't be read ({reason}); {count} such images so far",
            logger='current',
            level=logging.WARNING,
        )


def _require_the_end(path: str) -> None:
    """Raise ``OSError`` if a local JPEG or PNG file ends too early."""
    if not Path(path).is_file():
        return
    with open(path, 'rb') as file:
        end = _ENDS.get(file.read(2))
        if end is None:
            return
        file.seek(-len(end), 2)
        if file.read() == end:
            return
    with Image.open(path) as image:
        image.load()
