"""The demo's training configs, pointed at a data set."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mmengine.config import Config

from daal_mmdet.datasets.annotation_file import read_annotations
from daal_mmdet.datasets.coco_layout import CocoLayout, describe_split

__all__ = ['Schedule', 'adapt_schedule', 'build_config', 'limit_validation']

# Bounds that keep two trainings on a few CPU cores within about half an hour.
_LONGEST_SIDE = 320
_EPOCHS = 12
_MIN_ITERS, _MAX_ITERS = 200, 1500
_MAX_VAL_IMAGES = 300


@dataclass(frozen=True)
class Schedule:
    """How large and how long to train.

    Attributes:
        max_iters: Number of iterations; None for the config's.
        size: Longest image side in pixels; None for the config's scale.
    """

    max_iters: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        for key, least in (('max_iters', 10), ('size', 64)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f'{key} must be at least {least}, got {value}')


def adapt_schedule(schedule: Schedule, layout: CocoLayout, batch_size: int) -> Schedule:
    """Fill what the user left open with values that suit their data set.

    The longest side is the median of the training images' longest sides, at most 320
    pixels; the iterations are those of 12 epochs, at least 200 and at most 1500.
    """
    longest = [max(size) for size in layout.train.image_sizes]
    size = max(64, min(_LONGEST_SIDE, int(np.median(longest))))
    epochs = math.ceil(_EPOCHS * len(longest) / batch_size)
    iters = min(max(epochs, _MIN_ITERS), _MAX_ITERS)
    return Schedule(schedule.max_iters or iters, schedule.size or size)


def limit_validation(layout: CocoLayout, folder: Path, seed: int) -> CocoLayout:
    """Replace a large validation split by a random subset of 300 images.

    The subset's annotation file is written to ``folder``. Smaller splits are returned
    unchanged.
    """
    if len(layout.val.image_sizes) <= _MAX_VAL_IMAGES:
        return layout
    document = read_annotations(layout.val.ann_file)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(document['images']), _MAX_VAL_IMAGES, False))
    images = [document['images'][i] for i in chosen]
    kept = {image['id'] for image in images}
    annotations = [a for a in document['annotations'] if a['image_id'] in kept]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / 'val_subset.json'
    subset = dict(document, images=images, annotations=annotations)
    file.write_text(json.dumps(subset))
    return replace(layout, val=describe_split(file, layout.val.image_dir, subset))


def build_config(
    file: Path,
    layout: CocoLayout,
    schedule: Schedule,
    work_dir: Path,
    seed: int,
    groups: str,
) -> Config:
    """Load a config and point it at a data set.

    Validation runs once, after the last iteration, and its detections are written to
    ``predictions.pkl`` in ``work_dir``. The test part is taken out: the demo never
    looks at a test split.

    Args:
        file: A config of a one-stage detector with ``CocoDataset`` loaders and an
            iteration-based schedule.
        layout: The data set.
        schedule: Changes of image size and duration.
        work_dir: Folder of the run.
        seed: Seed of weights, data order and augmentation.
        groups: Rule by which ``FewClassCocoMetric`` groups the classes.
    """
    config = Config.fromfile(file)
    classes = layout.classes
    for loader, split in (
        (config.train_dataloader, layout.train),
        (config.val_dataloader, layout.val),
    ):
        loader.dataset.update(
            data_root='',
            ann_file=str(split.ann_file),
            data_prefix=dict(img=str(split.image_dir)),
            metainfo=dict(classes=classes),
        )
        if schedule.size:
            for step in loader.dataset.pipeline:
                if step.type == 'Resize':
                    step.scale = (schedule.size, schedule.size)
    config.model.bbox_head.num_classes = len(classes)
    config.val_evaluator.update(
        ann_file=str(layout.val.ann_file),
        train_ann_file=str(layout.train.ann_file),
        classwise=True,
        groups=groups,
    )
    config.val_evaluator = [
        config.val_evaluator,
        dict(type='DumpDetResults', out_file_path=str(work_dir / 'predictions.pkl')),
    ]
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        config[key] = None
    if schedule.max_iters:
        _stretch(config, schedule.max_iters)
    config.train_cfg.val_interval = config.train_cfg.max_iters
    config.default_hooks.logger.interval = max(1, min(10, config.train_cfg.max_iters))
    config.randomness = dict(seed=seed)
    return config


def _stretch(config: Config, max_iters: int) -> None:
    """Scale the whole schedule to another number of iterations."""
    factor = max_iters / config.train_cfg.max_iters
    config.train_cfg.max_iters = max_iters
    for scheduler in config.param_scheduler:
        for key in ('begin', 'end'):
            scheduler[key] = round(scheduler[key] * factor)
