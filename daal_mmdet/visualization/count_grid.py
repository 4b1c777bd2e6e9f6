"""Images of crowds with true and predicted density maps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ['CountedImage', 'draw_count_grid']

_WIDTH = 12.0
# Of the true map: what lies above shows in the strongest colour.
_TOP_PERCENTILE = 99.5


@dataclass(frozen=True)
class CountedImage:
    """An image with what is known and what was predicted of it.

    Attributes:
        name: Of the image.
        image: (H, W, 3) uint8, RGB.
        truth: (h, w) true density map, heads a cell.
        count: True number of heads.
        predicted: Density map (h, w) of each scheme.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    count: int
    predicted: dict[str, np.ndarray]


def draw_count_grid(
    images: Sequence[CountedImage], title: str = '', photos: bool = True
) -> Figure:
    """Draw a row for each image: itself, the true map, and each predicted map.

    The maps of a row share one scale of colours, that of the truth. Above each stands
    the count, which is the sum of a predicted map.

    Args:
        images: At least one, all with the same schemes.
        title: Heading of the figure.
        photos: Whether the images themselves are shown; not all may be published.

    Returns:
        A figure of its own, outside pyplot's state; save it with ``savefig``.

    Raises:
        ValueError: If there is no image, or schemes differ.
    """
    if not images:
        raise ValueError('images is empty: nothing to draw')
    schemes = list(images[0].predicted)
    for image in images:
        if list(image.predicted) != schemes:
            raise ValueError(
                f'predicted: image {image.name!r} has {list(image.predicted)}, '
                f'{images[0].name!r} has {schemes}'
            )
    columns = 1 + photos + len(schemes)
    shapes = [image.image.shape[0] / image.image.shape[1] for image in images]
    heights = [_WIDTH / columns * min(shape, 1.0) + 0.3 for shape in shapes]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.4), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontweight='bold')
    grid = figure.subplots(len(images), columns, squeeze=False, height_ratios=heights)
    for row, image in zip(grid, images, strict=True):
        if photos:
            row[0].imshow(image.image)
            row[0].set_title(f'image {image.name}', fontsize=10)
        top = float(np.percentile(image.truth, _TOP_PERCENTILE)) or 1.0
        maps = {'ground truth': image.truth, **image.predicted}
        for axes, (name, density) in zip(row[photos:], maps.items(), strict=True):
            count = image.count if name == 'ground truth' else density.sum()
            axes.imshow(density, cmap='turbo', vmin=0, vmax=top)
            axes.set_title(f'{name}: {count:.0f}', fontsize=10)
        for axes in row:
            axes.set_axis_off()
    return figure
