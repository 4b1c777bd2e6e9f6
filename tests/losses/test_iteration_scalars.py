import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import LogProcessor

from daal_mmdet.losses.iteration_scalars import IterationScalars, current_iteration


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


def test_the_runner_at_work_counts_and_not_the_one_built_last(hub):
    hub.update_info_dict(dict(loop_stage='train', iter=7, max_iters=9))
    built_later = MessageHub.get_instance('built later')
    assert MessageHub.get_current_instance() is built_later
    assert current_iteration() == 7
    IterationScalars('daal').send({'gain': torch.tensor(1.0)})
    assert list(hub.log_scalars) == ['train/daal_gain']
    assert not built_later.log_scalars
    # And in its turn.
    hub.pop_info('loop_stage')
    built_later.update_info_dict(dict(loop_stage='train', iter=0, max_iters=9))
    assert current_iteration() == 0


def test_a_training_that_is_over_has_no_iteration(hub):
    assert current_iteration() is None
    hub.update_info('iter', 3)
    assert current_iteration() == 3
    hub.update_info_dict(dict(iter=8, max_iters=9))
    assert current_iteration() is None
