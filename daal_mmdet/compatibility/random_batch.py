"""Random images with all the annotations that a detector of mmdet may ask for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from mmdet.structures import DetDataSample, TrackDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData

from daal_mmdet.compatibility.shipped_configs import walk

__all__ = ['count_classes', 'random_batch']

_ASK_FOR_MASKS = {'loss_mask', 'mask_head'}
# Batch norm over a map of one cell needs two images.
_NUM_IMAGES = 2


def count_classes(model: Mapping) -> int:
    """Smallest number of classes of the model's heads; 1 if they name none."""
    keys = ('num_classes', 'num_things_classes')
    numbers = [node[key] for node, key in walk(model) if key in keys]
    return min([n for n in numbers if isinstance(n, int) and n > 0], default=1)


def random_batch(
    model: Mapping, size: int, num_boxes: int, rng: np.random.Generator
) -> dict[str, list]:
    """A batch of two images as a data loader would give it.

    Each sample has boxes, masks if the model trains some, a semantic map of the image's
    size (an eighth of it for a fused semantic head) and proposals around the boxes. A
    model with a ``track_head`` gets the images as the frames of one video.

    Args:
        model: Config of the model.
        size: Height and width in pixels.
        num_boxes: Boxes in each image, 0 for none.
        rng: Source of all randomness.

    Returns:
        ``{'inputs': [(3, size, size) uint8, ...], 'data_samples': [...]}``.
    """
    inputs, samples = [], []
    for _ in range(_NUM_IMAGES):
        image = rng.integers(0, 256, (3, size, size), dtype=np.uint8)
        inputs.append(torch.from_numpy(image))
        samples.append(_random_sample(model, size, num_boxes, rng))
    if 'track_head' in model:
        for sample in samples:
            sample.gt_instances.instances_ids = torch.arange(num_boxes)
        frames = list(range(_NUM_IMAGES))
        metainfo = dict(key_frames_inds=frames[:1], ref_frames_inds=frames[1:])
        video = TrackDataSample(video_data_samples=samples, metainfo=metainfo)
        inputs, samples = [torch.stack(inputs)], [video]
    return {'inputs': inputs, 'data_samples': samples}


def _random_sample(
    model: Mapping, size: int, num_boxes: int, rng: np.random.Generator
) -> DetDataSample:
    shape = (size, size)
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_path='',
            img_shape=shape,
            ori_shape=shape,
            pad_shape=shape,
            batch_input_shape=shape,
            scale_factor=(1.0, 1.0),
            flip=False,
        )
    )
    # Boxes of a quarter to half of the side, none across the border.
    sides = rng.uniform(size / 4, size / 2, (num_boxes, 2))
    corners = rng.uniform(0, 1, (num_boxes, 2)) * (size - sides)
    boxes = np.concatenate((corners, corners + sides), axis=1).astype(np.float32)
    labels = rng.integers(0, count_classes(model), num_boxes)
    masks = np.zeros((num_boxes, size, size), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1 : y2 + 1, x1 : x2 + 1] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(boxes), labels=torch.from_numpy(labels)
    )
    if any(key in _ASK_FOR_MASKS for _, key in walk(model)):
        sample.gt_instances.masks = BitmapMasks(masks, size, size)
    sample.ignored_instances = sample.gt_instances[:0]
    fused = 'semantic_head' in (model.get('roi_head') or {})
    side = size // 8 if fused else size
    semantic = torch.from_numpy(rng.integers(0, 2, (1, side, side)))
    sample.gt_sem_seg = PixelData(sem_seg=semantic)
    noise = rng.normal(0, 4, (4 + num_boxes, 4)).astype(np.float32)
    anywhere = np.array([0, 0, size / 2, size / 2], dtype=np.float32) + noise[:4]
    around = boxes + noise[4 : 4 + num_boxes]
    proposals = np.concatenate((anywhere, around)).clip(0, size)
    sample.proposals = InstanceData(
        bboxes=torch.from_numpy(proposals), scores=torch.ones(len(proposals))
    )
    return sample
