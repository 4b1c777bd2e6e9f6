"""What the head of an image file says about it."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

__all__ = ['ImageHeader', 'read_image_header']


class ImageHeader(NamedTuple):
    """Of an image as its pixels are stored.

    Attributes:
        width: In pixels.
        height: In pixels.
        orientation: EXIF's, 1 to 8, by which OpenCV turns and mirrors the image when it
            reads it; 1 leaves it as it is.
    """

    width: int
    height: int
    orientation: int


def read_image_header(path: Path) -> ImageHeader:
    """Read size and orientation without the pixels.

    Raises:
        PIL.UnidentifiedImageError: If it is no image.
        PIL.Image.DecompressionBombError: If it has too many pixels for Pillow.
    """
    with Image.open(path) as image:
        exif = Image.Exif()
        # Not getexif: where EXIF says nothing it asks XMP, as OpenCV does not. And what
        # is no EXIF turns nothing.
        with contextlib.suppress(SyntaxError, struct.error):
            exif.load(image.info.get('exif', b''))
        orientation = exif.get(ExifTags.Base.Orientation)
        return ImageHeader(
            *image.size, orientation if orientation in range(2, 9) else 1
        )
