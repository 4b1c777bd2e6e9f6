"""Drawing of one procedural scene: shapes, textures, clutter and lighting.

Everything here is a function of a ``numpy.random.Generator`` and of its arguments;
nothing is read from or written to disk. Colours are RGB floats in [0, 255].
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

__all__ = ['MIN_SIDE', 'SHAPES', 'Scene', 'draw_scene', 'shape_mask']

# Masks are filled at this multiple of the final resolution and averaged down.
_SUPERSAMPLING = 4
# An object's colour must differ at least so much (Euclidean, RGB) from what it covers.
_MIN_CONTRAST = 80.0
_HUE_SPREAD = 18.0
_PLACEMENT_TRIES = 60
_SHRINK = 0.8
# Of an object that finds no place and is made smaller.
MIN_SIDE = 8.0


@dataclass(frozen=True)
class Scene:
    """One finished picture and what can be seen on it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        boxes: (n, 4) int64, ``x, y, width, height`` in pixels, tight on the visible
            pixels of each object.
        labels: (n,) int64 class indices, in the order in which they were drawn.
        areas: (n,) int64 number of visible pixels.
        visible: (n,) float64 visible share of each object, in (0, 1]; the rest is
            covered by later objects or lies outside the picture.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    visible: np.ndarray


# --------------------------------------------------------------------------- shapes
def _arc(
    start: float, stop: float, radius: float = 1.0, center: float = 0.0, num: int = 48
) -> np.ndarray:
    angle = np.linspace(start, stop, num)
    return np.stack([center + radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _regular(corners: int, radius: float = 1.0) -> np.ndarray:
    return _arc(0.0, 2 * np.pi, radius, num=corners + 1)[:-1]


def _star(points: int, inner: float) -> np.ndarray:
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _crescent(offset: float = 0.5, radius: float = 0.8) -> np.ndarray:
    """The unit disc less a smaller disc whose centre is moved along x."""
    x = (1 - radius**2 + offset**2) / (2 * offset)
    outer = np.arccos(x)
    inner = np.arctan2(np.sqrt(1 - x**2), x - offset)
    return np.concatenate(
        [
            _arc(outer, 2 * np.pi - outer),
            _arc(2 * np.pi - inner, inner, radius, offset),
        ]
    )


def _cross(half_width: float = 0.33) -> np.ndarray:
    a, b = half_width, 0.95
    return np.array(
        [
            [a, b],
            [a, a],
            [b, a],
            [b, -a],
            [a, -a],
            [a, -b],
            [-a, -b],
            [-a, -a],
            [-b, -a],
            [-b, a],
            [-a, a],
            [-a, b],
        ]
    )


def _arrow() -> np.ndarray:
    return np.array(
        [
            [1.0, 0.0],
            [0.1, 0.8],
            [0.1, 0.3],
            [-0.95, 0.3],
            [-0.95, -0.3],
            [0.1, -0.3],
            [0.1, -0.8],
        ]
    )


@dataclass(frozen=True)
class ShapeClass:
    """How the objects of a class look.

    Attributes:
        contours: Polygons in the unit disc, (k, 2) each, filled by the even-odd rule,
            so that a second contour is a hole.
        hue: Mean hue in degrees; objects deviate by up to :data:`_HUE_SPREAD`.
        textures: Kinds of :func:`texture_field` that its objects wear.
    """

    contours: tuple[np.ndarray, ...]
    hue: float
    textures: tuple[str, ...]


_PLAIN = ('flat', 'gradient', 'noise')
# In the order of frequency in training. Each of the last four, the rare ones, has much
# of the outline of a frequent class and a hue between that class and the next on the
# colour wheel, so that what is learned first pulls it to the wrong class; it differs in
# texture or in a detail of the outline.
SHAPES: dict[str, ShapeClass] = {
    'disc': ShapeClass((_regular(64),), 0, _PLAIN),
    'square': ShapeClass((_regular(4),), 225, _PLAIN),
    'triangle': ShapeClass((_regular(3),), 135, _PLAIN),
    'star': ShapeClass((_star(5, 0.42),), 45, _PLAIN),
    'ring': ShapeClass((_regular(64), _regular(64, 0.55)), 270, _PLAIN),
    'cross': ShapeClass((_cross(),), 180, _PLAIN),
    'crescent': ShapeClass((_crescent(),), 90, _PLAIN),
    'arrow': ShapeClass((_arrow(),), 315, _PLAIN),
    'hexagon': ShapeClass((_regular(6),), 22, ('dots',)),  # disc
    'frame': ShapeClass((_regular(4), _regular(4, 0.55)), 202, _PLAIN),  # square
    'spark': ShapeClass((_star(4, 0.36),), 67, ('stripes',)),  # star
    'half_disc': ShapeClass((_arc(-np.pi / 2, np.pi / 2),), 157, ('checker',)),
}


def shape_mask(contours: tuple[np.ndarray, ...], matrix: np.ndarray) -> np.ndarray:
    """Coverage of each pixel by a shape, cut to the shape's own extent.

    Args:
        contours: Polygons in the unit disc, (k, 2) each; even-odd rule.
        matrix: (2, 2) linear map from the unit disc to pixels.

    Returns:
        (h, w) float32 coverage in [0, 1] whose centre is the shape's origin.
    """
    points = [contour @ matrix.T for contour in contours]
    half_w, half_h = np.ceil(np.abs(np.concatenate(points)).max(axis=0)).astype(int) + 1
    size = (2 * int(half_w), 2 * int(half_h))
    scale = _SUPERSAMPLING
    canvas = np.zeros((size[1] * scale, size[0] * scale), np.uint8)
    corners = [np.rint((p + (half_w, half_h)) * scale).astype(np.int32) for p in points]
    cv2.fillPoly(canvas, corners, 255)
    return (
        cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    )


# ------------------------------------------------------------------------- textures
TEXTURES = ('flat', 'gradient', 'stripes', 'checker', 'noise', 'dots')


def texture_field(rng: Generator, kind: str, height: int, width: int) -> np.ndarray:
    """A pattern with values in [-1, 1] at a random angle, period and phase.

    Args:
        rng: Source of all randomness.
        kind: One of :data:`TEXTURES`.
        height: Number of rows.
        width: Number of columns.

    Returns:
        (height, width) float32.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    period = rng.uniform(5, 14)
    phase = rng.uniform(0, period)
    if kind == 'flat':
        field = np.zeros_like(u)
    elif kind == 'gradient':
        field = 2 * (u - u.min()) / max(np.ptp(u), 1) - 1
    elif kind == 'stripes':
        field = np.sin(2 * np.pi * (u + phase) / period)
    elif kind == 'checker':
        field = np.sign(
            np.sin(2 * np.pi * (u + phase) / period) * np.sin(2 * np.pi * v / period)
        )
    elif kind == 'noise':
        grain = int(rng.integers(2, 5))
        coarse = rng.uniform(-1, 1, (height // grain + 2, width // grain + 2))
        field = cv2.resize(coarse.astype(np.float32), (width, height))
    else:
        x = (u + phase) % period - period / 2
        y = v % period - period / 2
        field = np.where(x**2 + y**2 < (0.3 * period) ** 2, 1.0, -1.0)
    return np.clip(field, -1, 1).astype(np.float32)


def _random_color(rng: Generator, hue: float | None = None) -> np.ndarray:
    """A colour around a hue, or a duller one of any hue for the background."""
    if hue is None:
        degrees, saturation = rng.uniform(0, 360), rng.uniform(0.05, 0.45)
    else:
        degrees = (hue + rng.uniform(-_HUE_SPREAD, _HUE_SPREAD)) % 360
        saturation = rng.uniform(0.5, 1.0)
    hsv = np.array([[[degrees, saturation, rng.uniform(0.3, 1.0)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _contrasting_color(
    rng: Generator, hue: float, background: np.ndarray
) -> np.ndarray:
    """The first of ten colours of a hue that stands off, or else the farthest."""
    colors = [_random_color(rng, hue) for _ in range(10)]
    distance = [float(np.linalg.norm(color - background)) for color in colors]
    far = [i for i, d in enumerate(distance) if d >= _MIN_CONTRAST]
    return colors[far[0] if far else int(np.argmax(distance))]


# ----------------------------------------------------------------------- background
def _blend(canvas: np.ndarray, alpha: np.ndarray, color: np.ndarray) -> None:
    canvas += alpha[..., None] * (color - canvas)


def _draw_background(
    rng: Generator, height: int, width: int, clutter: float
) -> np.ndarray:
    """A soft colour landscape under low-contrast texture, blobs and strokes."""
    base = _random_color(rng)
    corners = base + rng.normal(0, 22, (4, 4, 3))
    canvas = cv2.resize(
        corners.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    canvas += (
        rng.uniform(2, 9)
        * texture_field(rng, str(rng.choice(TEXTURES)), height, width)[..., None]
    )
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(rng.poisson(3 * clutter)):
        angle, (a, b) = rng.uniform(0, np.pi), rng.uniform(0.04, 0.2, 2) * width
        dx, dy = x - rng.uniform(0, width), y - rng.uniform(0, height)
        u = dx * np.cos(angle) + dy * np.sin(angle)
        v = dy * np.cos(angle) - dx * np.sin(angle)
        alpha = rng.uniform(0.2, 0.6) * np.exp(-((u / a) ** 2) - (v / b) ** 2)
        _blend(canvas, alpha, _random_color(rng))
    for _ in range(rng.poisson(4 * clutter)):
        start, bend, stop = rng.uniform(-0.1, 1.1, (3, 2)) * (width, height)
        t = np.linspace(0, 1, 24)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * stop
        stroke = np.zeros((height, width), np.uint8)
        cv2.polylines(
            stroke,
            [np.rint(curve * 16).astype(np.int32)],
            False,
            255,
            thickness=int(rng.integers(1, 4)),
            lineType=cv2.LINE_AA,
            shift=4,
        )
        alpha = rng.uniform(0.25, 0.8) * (stroke.astype(np.float32) / 255)
        _blend(canvas, alpha, _random_color(rng))
    return canvas


def _light(rng: Generator, canvas: np.ndarray) -> np.ndarray:
    """Brightness, an illumination gradient, gamma and sensor noise; gives uint8."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.25) * (x * np.cos(angle) + y * np.sin(angle))
    lit = canvas * (rng.uniform(0.6, 1.15) * (1 + slope))[..., None]
    lit = 255 * np.clip(lit / 255, 0, 1) ** rng.uniform(0.8, 1.25)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(np.rint(lit + rng.uniform(1, 7) * noise), 0, 255).astype(np.uint8)


# -------------------------------------------------------------------------- objects
def _random_mask(
    rng: Generator, contours: tuple[np.ndarray, ...], side: float
) -> np.ndarray:
    """The shape at a random rotation and slight anisotropy, about `side` pixels."""
    angle, skew = rng.uniform(0, 2 * np.pi, 2)
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    axis = np.array([[np.cos(skew), -np.sin(skew)], [np.sin(skew), np.cos(skew)]])
    matrix = axis @ np.diag([stretch, 1 / stretch]) @ axis.T @ turn
    return shape_mask(contours, side / 2 * matrix)


def _paste_slices(
    top: int, left: int, mask: np.ndarray, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a patch lies on the picture, and which part of the patch that is."""
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + mask.shape[0], height), min(left + mask.shape[1], width)
    return (
        (slice(y0, y1), slice(x0, x1)),
        (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)),
    )


def _place(
    rng: Generator,
    contours: tuple[np.ndarray, ...],
    side: float,
    owner: np.ndarray,
    full: list[int],
    min_visible: float,
) -> tuple[np.ndarray, tuple[slice, slice], tuple[slice, slice]] | None:
    """Look for a place where every object stays visible enough.

    Args:
        rng: Source of all randomness.
        contours: Polygons of the object in the unit disc.
        side: Wanted diameter in pixels.
        owner: (H, W) index of the object seen at each pixel, -1 for background.
        full: Pixel count of each object drawn so far, uncovered.
        min_visible: Smallest visible share of each object.

    Returns:
        The patch's mask, the slices of the picture and of the patch; None if no
        place was found.
    """
    height, width = owner.shape
    visible = np.bincount(owner[owner >= 0], minlength=len(full))
    needed = min_visible * np.array(full, dtype=np.float64)
    while side >= MIN_SIDE:
        for _ in range(_PLACEMENT_TRIES):
            mask = _random_mask(rng, contours, side)
            solid = mask >= 0.5
            # At most a quarter of the diameter of an object sticks out on a side.
            y, x = rng.uniform(side / 4, np.array([height, width]) - side / 4)
            top = int(np.rint(y - mask.shape[0] / 2))
            left = int(np.rint(x - mask.shape[1] / 2))
            where, part = _paste_slices(top, left, mask, height, width)
            inside = solid[part]
            if inside.sum() < min_visible * solid.sum():
                continue
            covered = owner[where][inside]
            lost = np.bincount(covered[covered >= 0], minlength=len(full))
            if np.all(visible - lost >= needed):
                return mask, where, part
        side *= _SHRINK
    return None


def draw_scene(
    rng: Generator,
    labels: np.ndarray,
    *,
    size: tuple[int, int],
    object_size: tuple[float, float],
    min_visible: float,
    clutter: float,
) -> Scene:
    """Draw one scene that shows an object for each label.

    Objects are painted one over the other in the order of ``labels``; side lengths
    are log-uniform. An object that finds no place is made smaller.

    Args:
        rng: Source of all randomness.
        labels: (n,) indices into :data:`SHAPES`; n = 0 gives a bare background.
        size: Width and height of the picture in pixels.
        object_size: Smallest and largest diameter, as shares of the shorter side.
        min_visible: Smallest visible share of each object, in (0, 1].
        clutter: Amount of background strokes and blobs; 0 for none, 1 is usual.

    Raises:
        ValueError: If the objects don't fit into the picture even when small.
    """
    width, height = size
    canvas = _draw_background(rng, height, width, clutter)
    owner = np.full((height, width), -1, np.int64)
    full: list[int] = []
    shapes = list(SHAPES.values())
    low, high = np.log(np.array(object_size) * min(size))
    for index, label in enumerate(labels):
        side = float(np.exp(rng.uniform(low, high)))
        looks = shapes[label]
        placed = _place(rng, looks.contours, side, owner, full, min_visible)
        if placed is None:
            raise ValueError(
                f'{len(labels)} objects do not fit into one picture of '
                f'{width}x{height} pixels with min_visible={min_visible}: lower '
                'instances_per_image or min_visible, or enlarge image_size'
            )
        mask, where, part = placed
        first = _contrasting_color(rng, looks.hue, canvas[where].mean(axis=(0, 1)))
        second = first * rng.uniform(0.35, 0.7)
        kind = str(rng.choice(looks.textures))
        blend = (texture_field(rng, kind, *mask.shape)[part][..., None] + 1) / 2
        paint = first + blend * (second - first)
        canvas[where] += mask[part][..., None] * (paint - canvas[where])
        solid = mask >= 0.5
        owner[where][solid[part]] = index
        full.append(int(solid.sum()))
    return _describe(_light(rng, canvas), owner, np.asarray(labels, np.int64), full)


def _describe(
    image: np.ndarray, owner: np.ndarray, labels: np.ndarray, full: list[int]
) -> Scene:
    boxes = np.zeros((len(full), 4), np.int64)
    areas = np.zeros(len(full), np.int64)
    for index in range(len(full)):
        rows, cols = np.nonzero(owner == index)
        x, y = cols.min(), rows.min()
        boxes[index] = x, y, cols.max() + 1 - x, rows.max() + 1 - y
        areas[index] = rows.size
    return Scene(image, boxes, labels, areas, areas / np.maximum(full, 1))
