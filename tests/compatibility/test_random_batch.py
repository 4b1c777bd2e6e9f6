import numpy as np
import pytest
import torch

from daal_mmdet.compatibility.random_batch import count_classes, random_batch

SIZE = 64


@pytest.mark.parametrize(
    ('model', 'number'),
    [
        ({}, 1),
        ({'bbox_head': {'num_classes': 80}}, 80),
        ({'roi_head': {'bbox_head': [{'num_classes': 7}], 'n': {'num_classes': 9}}}, 7),
        ({'panoptic_head': {'num_things_classes': 4, 'num_stuff_classes': 0}}, 4),
        ({'head': {'num_classes': 0}}, 1),
    ],
)
def test_labels_fit_every_head(model, number):
    assert count_classes(model) == number
    batch = random_batch(model, SIZE, 5, np.random.default_rng(0))
    for sample in batch['data_samples']:
        assert sample.gt_instances.labels.max() < number


def test_boxes_lie_in_the_image_and_masks_in_the_boxes():
    model = {'roi_head': {'mask_head': {'num_classes': 3}}}
    batch = random_batch(model, SIZE, 3, np.random.default_rng(0))
    assert len(batch['inputs']) == len(batch['data_samples']) == 2
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        assert image.shape == (3, SIZE, SIZE)
        assert image.dtype == torch.uint8
        instances = sample.gt_instances
        boxes = instances.bboxes
        assert boxes.min() >= 0
        assert boxes.max() <= SIZE
        assert ((boxes[:, 2:] - boxes[:, :2]) >= SIZE / 4 - 1e-3).all()
        for mask, (x1, y1, x2, y2) in zip(instances.masks.masks, boxes, strict=True):
            ys, xs = mask.nonzero()
            assert x1 - 1 <= xs.min() <= xs.max() <= x2
            assert y1 - 1 <= ys.min() <= ys.max() <= y2
        assert sample.gt_sem_seg.sem_seg.shape == (1, SIZE, SIZE)
        assert len(sample.proposals) == 4 + 3
        assert len(sample.ignored_instances) == 0


def test_only_what_the_model_asks_for():
    rng = np.random.default_rng(0)
    (sample, _) = random_batch({'bbox_head': {}}, SIZE, 2, rng)['data_samples']
    assert 'masks' not in sample.gt_instances
    fused = {'roi_head': {'semantic_head': {}}}
    (sample, _) = random_batch(fused, SIZE, 2, rng)['data_samples']
    assert sample.gt_sem_seg.sem_seg.shape == (1, SIZE // 8, SIZE // 8)


def test_without_boxes_and_the_same_for_the_same_seed():
    model = {'mask_head': {'num_classes': 3}}
    (sample, _) = random_batch(model, SIZE, 0, np.random.default_rng(0))['data_samples']
    assert sample.gt_instances.bboxes.shape == (0, 4)
    assert sample.gt_instances.masks.masks.shape == (0, SIZE, SIZE)
    first, second = (
        random_batch(model, SIZE, 2, np.random.default_rng(3)) for _ in range(2)
    )
    assert torch.equal(first['inputs'][1], second['inputs'][1])
    assert not torch.equal(first['inputs'][0], first['inputs'][1])


def test_a_tracking_head_gets_a_video():
    model = {'track_head': {'num_classes': 3, 'loss_mask': {}}}
    batch = random_batch(model, SIZE, 2, np.random.default_rng(0))
    assert [frames.shape for frames in batch['inputs']] == [(2, 3, SIZE, SIZE)]
    (video,) = batch['data_samples']
    assert len(video.video_data_samples) == 2
    for sample in video.video_data_samples:
        assert sample.gt_instances.instances_ids.tolist() == [0, 1]
        assert len(sample.gt_instances.masks) == 2
