"""The table of costs, for shipped configs."""

from pathlib import Path

import cost_table as tool
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from daal_mmdet.cost_model import Cluster, Workload, cost, workload_of

CONFIGS = Path(__file__).parents[2] / 'configs'
RETINANET = CONFIGS / 'long_tail' / 'retinanet_mobilenetv2_daal.py'
FASTER_RCNN = CONFIGS / 'bccd' / 'faster_rcnn_mobilenetv2_ce.py'


def workload():
    values = dict(num_classes=80, num_parameters=10**6, positives=256)
    state = dict(slots=0, groups=0, levels=4)
    return Workload('test', **values, **state)


def test_one_gpu_waits_for_nobody():
    one = cost(workload(), 1)
    assert one.added_seconds == 0
    assert one.plain_seconds == 0.2


def test_time_is_that_of_the_rings_and_trees():
    cluster = Cluster(4, node_bandwidth=1e9, network_bandwidth=1e8, latency=1e-3)
    # The residuals of all others, three collectives of 3 hops; 3 hops there and back
    # for each of the two small sums.
    residuals = 7 * (8 + 256 * 24) / 1e8 + 3 * 3 * 1e-3
    sums = 2 * 7 / 8 * (84 * 4 + 4 * 16) / 1e8 + 2 * 6 * 1e-3
    eight = cost(workload(), 8, cluster)
    assert eight.added_seconds == pytest.approx(residuals + sums)
    assert eight.plain_seconds == pytest.approx(0.2 + 2 * 7 / 8 * 4e6 / 1e8)
    two = cost(workload(), 2, cluster)
    assert two.plain_seconds == pytest.approx(0.2 + 4e6 / 1e9)


def test_number_of_gpus_is_checked():
    with pytest.raises(ValueError, match='num_gpus: expected a value >= 1, got 0'):
        cost(workload(), 0)


def test_slots_of_a_dense_head_and_of_rois():
    model = MODELS.build(Config.fromfile(RETINANET).model)
    # Strides 8 to 64; 65 pixels take one cell more.
    anchors = model.bbox_head.num_base_priors
    cells = 8 * 9 + 4 * 5 + 2 * 3 + 1 * 2
    found = workload_of('dense', model, image_size=(64, 65))
    assert (found.slots, found.groups) == (cells * anchors, 4 * anchors)
    assert found.num_classes == 12
    assert found.num_parameters == sum(p.numel() for p in model.parameters())
    for parameter in model.backbone.parameters():
        parameter.requires_grad = False
    trained = sum(p.numel() for p in [*model.neck.parameters()])
    trained += sum(p.numel() for p in model.bbox_head.parameters())
    assert workload_of('x', model, (64, 64)).num_parameters == trained

    model = MODELS.build(Config.fromfile(FASTER_RCNN).model)
    found = workload_of('rois', model, image_size=(64, 64))
    assert found.levels == len(model.roi_head.bbox_roi_extractor.featmap_strides)
    assert found.slots == found.groups == found.levels * 3


def test_table_has_a_line_a_config(capsys):
    tool.main([str(RETINANET), '--gpus', '1', '1024', '--positives', '10'])
    head, _, line = capsys.readouterr().out.splitlines()[:3]
    assert head.endswith('| 1 GPU | 1024 GPUs |')
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    assert cells[0] == 'long_tail/retinanet_mobilenetv2_daal'
    # 12 classes and 4 more sums; a count, and 10 rows of a slot and four numbers.
    assert cells[2:5] == ['64 B', '248 B', '64 B']
    assert cells[6] == '200.0 ms (+0.00, 0.0%)'
    # The whole step, and what of it is added.
    model = MODELS.build(Config.fromfile(RETINANET).model)
    many = cost(workload_of('x', model, (800, 1344), positives=10), 1024)
    whole = 1e3 * (many.plain_seconds + many.added_seconds)
    share = many.added_seconds / many.plain_seconds
    added = 1e3 * many.added_seconds
    assert cells[7] == f'{whole:.1f} ms (+{added:.2f}, {share:.1%})'
    assert whole > 200 + added > 200


def test_what_a_config_does_not_have_is_said_below(capsys):
    both = CONFIGS / 'bccd' / 'retinanet_mobilenetv2_daal_uncertainty.py'
    tool.main([str(path) for path in (FASTER_RCNN, both, RETINANET)])
    assert capsys.readouterr().out.splitlines()[5:] == [
        '',
        'bccd/faster_rcnn_mobilenetv2_ce has no DAALLoss and no KalmanCovarianceHook: '
        'the table shows what it would add',
        'long_tail/retinanet_mobilenetv2_daal has no KalmanCovarianceHook: the table '
        'shows what it would add',
    ]
    tool.main([str(both)])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_model_without_boxes_is_named():
    with pytest.raises(ValueError, match='x: expected a bbox_head .* got Linear'):
        workload_of('x', torch.nn.Linear(1, 1), (64, 64))


def test_numbers_are_checked_on_the_command_line(capsys):
    with pytest.raises(SystemExit):
        tool.main([str(RETINANET), '--step-seconds', '0'])
    assert '--step-seconds: expected > 0, got 0' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main([str(RETINANET), '--image-size', '-5', '64'])
    assert '--image-size: expected sides > 0, got [-5, 64]' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='num_gpus: expected a value >= 1, got 0'):
        tool.main([str(RETINANET), '--gpus', '0'])
