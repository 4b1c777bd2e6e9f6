"""A density map laid over its image."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np

__all__ = ['overlay_density']

_COLORMAP = 'turbo'
# How much of the picture the densest places hide.
_OPACITY = 0.75


def overlay_density(
    image: np.ndarray, density: np.ndarray, top: float | None = None
) -> np.ndarray:
    """Colour the crowded places of an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        density: (h, w), any size; it is stretched over the image. Negative values show
            as 0.
        top: Value of the strongest colour; None takes the map's largest. A map without
            a positive value leaves the image as it is.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    height, width = image.shape[:2]
    if top is None:
        top = float(density.max(initial=0))
    if top <= 0:
        return image.copy()
    share = (np.clip(density, 0, top) / top).astype(np.float32)
    share = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)
    colors = 255 * matplotlib.colormaps[_COLORMAP](share)[..., :3]
    # The square root keeps single heads visible beside a dense crowd.
    opacity = _OPACITY * np.sqrt(share)[..., None]
    mixed = opacity * colors + (1 - opacity) * image
    return mixed.round().astype(np.uint8)
