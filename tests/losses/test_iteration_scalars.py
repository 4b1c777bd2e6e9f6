import pytest
import torch
from mmengine.runner import LogProcessor

from daal_mmdet.losses.iteration_scalars import IterationScalars


@pytest.mark.parametrize(
    ('place', 'shown'),
    [
        ('daal_rpn_head', 'daal_rpn_head'),
        ('daal_heads.0.loss_mask', 'daal_heads.0_mask'),
        ('daal_head.loss', 'daal_head'),
        ('kalman_bbox_head.loss_l1', 'kalman_bbox_head_l1'),
    ],
)
def test_no_place_makes_the_log_show_a_mean(hub, place, shown):
    IterationScalars(place).send({'gain': torch.tensor(1.0)})
    (name,) = hub.log_scalars
    assert name == f'train/{shown}_gain'
    averaged = LogProcessor().mean_pattern
    assert averaged.search(f'train/{place}_gain') or place == shown
    assert not averaged.search(name)
