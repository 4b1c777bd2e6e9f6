"""A generated long-tailed detection data set: scenes of shapes, COCO JSON on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from daal_mmdet.progress import progress_bar

from .scene_drawing import MIN_SIDE, SHAPES, Scene, draw_scene

__all__ = ['CLASSES', 'LongTailScenes', 'make_long_tail', 'zipf_counts']

CLASSES: tuple[str, ...] = tuple(SHAPES)
SPLITS = ('train', 'val', 'test')
MANIFEST = 'manifest.json'
# Raised whenever the same arguments would give other pictures or other boxes.
_FORMAT = 1


@dataclass(frozen=True)
class LongTailScenes:
    """Arguments of the generated data set.

    Training counts follow Zipf's law: the class of rank r has a share proportional
    to ``r ** -exponent``. Validation and test are much flatter
    (``eval_exponent``): AP is a mean over classes, and the AP of a class that is seen
    three times says nothing, so the split that measures needs every class often, as
    LVIS-style "balanced validation" sets do. The prior therefore shifts between
    training and validation; that is the point of training for rare classes.

    Args:
        num_train: Number of training images.
        num_val: Number of validation images.
        num_test: Number of test images.
        instances_per_image: Mean number of objects in an image, at least 1. Each
            image draws its own number between half and one and a half times that.
        exponent: Zipf exponent of the training counts, at least 0 (0: balanced).
        eval_exponent: Zipf exponent of the validation and test counts.
        min_instances: Smallest number of objects of a class in each split.
        image_size: Width and height in pixels.
        object_size: Smallest and largest object diameter, as shares of the shorter
            side of the image; at least 8 pixels.
        min_visible: Smallest visible share of each object, in (0, 1].
        clutter: Amount of background strokes and blobs; 0 for none, 1 is usual.
        seed: Seed of everything.

    Raises:
        ValueError: If a value lies outside the range given above.
    """

    num_train: int = 320
    num_val: int = 160
    num_test: int = 160
    instances_per_image: float = 4.0
    exponent: float = 1.8
    eval_exponent: float = 0.3
    min_instances: int = 3
    image_size: tuple[int, int] = (192, 192)
    object_size: tuple[float, float] = (0.14, 0.36)
    min_visible: float = 0.5
    clutter: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.object_size
        checks = {
            'num_train': (self.num_train >= 1, 'at least 1'),
            'num_val': (self.num_val >= 1, 'at least 1'),
            'num_test': (self.num_test >= 0, 'at least 0'),
            'instances_per_image': (self.instances_per_image >= 1, 'at least 1'),
            'exponent': (self.exponent >= 0, 'at least 0'),
            'eval_exponent': (self.eval_exponent >= 0, 'at least 0'),
            'min_instances': (self.min_instances >= 1, 'at least 1'),
            'image_size': (min(self.image_size) >= 32, 'at least 32 x 32'),
            'object_size': (
                low <= high <= 1 and low * min(self.image_size) >= MIN_SIDE,
                f'smallest <= largest <= 1, and the smallest {MIN_SIDE:g} pixels of '
                f'{self.image_size}',
            ),
            'min_visible': (0 < self.min_visible <= 1, 'in (0, 1]'),
            'clutter': (self.clutter >= 0, 'at least 0'),
            'seed': (self.seed >= 0, 'at least 0'),
        }
        for key, (valid, allowed) in checks.items():
            if not valid:
                raise ValueError(f'{key} must be {allowed}, got {getattr(self, key)}')

    def num_images(self, split: str) -> int:
        """Number of images of a split."""
        sizes = dict(train=self.num_train, val=self.num_val, test=self.num_test)
        return sizes[split]

    @property
    def total_images(self) -> int:
        """Number of images of all splits."""
        return self.num_train + self.num_val + self.num_test

    def manifest(self) -> dict:
        """The arguments as they are written to disk."""
        arguments = json.loads(json.dumps(asdict(self)))
        return {'format': _FORMAT, 'classes': list(CLASSES), 'arguments': arguments}


def zipf_counts(
    total: int, num_classes: int, exponent: float, minimum: int = 1
) -> np.ndarray:
    """Split ``total`` into integer counts proportional to ``rank ** -exponent``.

    Every class first gets ``minimum``, where its share is smaller than that; the rest
    is split by largest remainders among the others, so the counts add up exactly and
    never rise with the rank.

    Returns:
        (num_classes,) int64, falling.

    Raises:
        ValueError: If ``total`` is less than ``minimum * num_classes``.
    """
    if total < minimum * num_classes:
        raise ValueError(
            f'{total} objects cannot give each of {num_classes} classes {minimum}: '
            'raise the number of images or instances_per_image, or lower '
            'min_instances'
        )
    shares = np.arange(1, num_classes + 1, dtype=np.float64) ** -exponent
    counts = np.full(num_classes, minimum, np.int64)
    # The tail is the shortest one whose removal leaves nobody below the minimum.
    for head in range(num_classes, 0, -1):
        budget = total - minimum * (num_classes - head)
        exact = budget * shares[:head] / shares[:head].sum()
        if exact[-1] >= minimum or head == 1:
            break
    counts[:head] = np.floor(exact)
    remainders = exact - counts[:head]
    lacking = budget - counts[:head].sum()
    counts[np.argsort(-remainders, kind='stable')[:lacking]] += 1
    return np.sort(counts)[::-1]


def _deal_labels(rng: Generator, args: LongTailScenes, split: str) -> list[np.ndarray]:
    """The class labels of each image of a split, shuffled."""
    mean = args.instances_per_image
    low = max(1, round(mean / 2))
    high = max(low, round(2 * mean) - low)
    sizes = rng.integers(low, high + 1, args.num_images(split))
    exponent = args.exponent if split == 'train' else args.eval_exponent
    counts = zipf_counts(int(sizes.sum()), len(CLASSES), exponent, args.min_instances)
    labels = rng.permutation(np.repeat(np.arange(len(CLASSES)), counts))
    return np.split(labels, np.cumsum(sizes)[:-1])


def _write_split(
    root: Path, args: LongTailScenes, split: str, on_image: Callable[[], object]
) -> None:
    folder = root / split
    folder.mkdir()
    split_index = SPLITS.index(split)
    dealt = _deal_labels(np.random.default_rng([args.seed, split_index]), args, split)
    images: list[dict] = []
    annotations: list[dict] = []
    width, height = args.image_size
    for index, labels in enumerate(dealt):
        # A generator of its own: an image depends on nothing that came before it.
        rng = np.random.default_rng([args.seed, split_index, index])
        scene = draw_scene(
            rng,
            labels,
            size=args.image_size,
            object_size=args.object_size,
            min_visible=args.min_visible,
            clutter=args.clutter,
        )
        name = f'{index:06d}.jpg'
        bgr = np.ascontiguousarray(scene.image[..., ::-1])
        if not cv2.imwrite(str(folder / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92]):
            raise OSError(f'could not write {folder / name}')
        image_id = index + 1
        images.append(dict(id=image_id, file_name=name, width=width, height=height))
        annotations.extend(_coco_annotations(scene, image_id, len(annotations) + 1))
        on_image()
    document = dict(
        info=dict(description=f'Long-tailed scenes, {split}, seed {args.seed}'),
        images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
    )
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(document))


def _coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    return [
        dict(
            id=first_id + i,
            image_id=image_id,
            category_id=int(label) + 1,
            bbox=box.tolist(),
            area=int(area),
            iscrowd=0,
            visible=round(float(visible), 4),
        )
        for i, (label, box, area, visible) in enumerate(
            zip(scene.labels, scene.boxes, scene.areas, scene.visible, strict=True)
        )
    ]


def _is_finished(root: Path, args: LongTailScenes) -> bool:
    """Whether root holds the finished data set; False if there is nothing yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / MANIFEST).is_file():
        raise FileExistsError(
            f'{root} exists and holds no {MANIFEST}, so it is no generated data set: '
            'name a new or an empty folder'
        )
    found = json.loads((root / MANIFEST).read_text())
    wanted = args.manifest()
    if found == wanted:
        return True
    old, new = found.get('arguments', {}), wanted['arguments']
    changed = [
        f'{key}={old.get(key)} there, {key}={new.get(key)} asked'
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if not changed:
        changed = ['made by another version of the generator']
    raise ValueError(
        f'{root} holds a data set with other arguments ({"; ".join(changed)}): '
        'delete it or name another folder'
    )


def make_long_tail(
    root: str | os.PathLike,
    args: LongTailScenes | None = None,
    *,
    progress: bool = True,
    on_image: Callable[[], object] | None = None,
) -> Path:
    """Write the data set to ``root`` unless it is there already.

    The layout is ``annotations/{train,val,test}.json`` (COCO detection format, boxes
    tight on the visible pixels), the images in ``train/``, ``val/`` and ``test/``,
    and ``manifest.json`` with the arguments. The same arguments give the same bytes,
    with the same NumPy and OpenCV. Everything is written to ``<root>.partial``, which
    is renamed to ``root`` at the very end: a ``root`` that exists is complete, and what
    an interrupted call left behind is thrown away by the next one.

    Args:
        root: Folder to create.
        args: What to draw; None for the defaults.
        progress: Show a progress bar.
        on_image: Called after each image, instead of a bar, for a caller that has
            a bar of its own.

    Returns:
        ``root`` as an absolute path.

    Raises:
        ValueError: If ``root`` holds a data set made with other arguments, or if the
            objects asked for don't fit.
        FileExistsError: If ``root`` holds something else.
    """
    args = args or LongTailScenes()
    path = Path(root).resolve()
    if _is_finished(path, args):
        return path
    partial = path.with_name(path.name + '.partial')
    if partial.exists():
        shutil.rmtree(partial)
    (partial / 'annotations').mkdir(parents=True)
    with progress_bar(
        total=args.total_images,
        desc='Drawing scenes',
        unit='image',
        disable=not progress or on_image is not None,
    ) as bar:
        for split in SPLITS:
            if args.num_images(split):
                _write_split(partial, args, split, on_image or bar.update)
    (partial / MANIFEST).write_text(json.dumps(args.manifest(), indent=2) + '\n')
    os.replace(partial, path)
    return path
