import math

import numpy as np
import pytest
from PIL import Image

from daal_mmdet.visualization import Boxes, Example, TrainedRun, draw_comparison

CLASSES = ('disc', 'ring', 'star', 'cross')
COUNTS = (20, 500, 3, 90)
GROUPS = ('medium', 'many', 'few', 'medium')


def _run(name, level):
    steps = np.arange(10, 210, 10)
    return TrainedRun(
        name,
        steps,
        dict(loss_cls=level / steps, loss_bbox=0.5 * level / steps),
        class_ap=np.array([0.1, 0.6, math.nan, 0.3]) * level,
        group_ap=dict(few=math.nan, medium=0.2 * level, many=0.6 * level),
    )


@pytest.fixture
def runs():
    return [_run('FocalLoss', 1.0), _run('DAALLoss', 1.2)]


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    truth = Boxes(np.array([[2, 2, 30, 30], [20, 10, 40, 36]], float), np.array([2, 1]))
    right = Boxes(truth.xyxy + 1, truth.labels, np.array([0.9, 0.31]))
    wrong = Boxes(truth.xyxy, np.array([1, 2]), np.array([0.8, 0.29]))
    return Example(
        rng.integers(0, 255, (40, 48, 3), dtype=np.uint8), truth, (right, wrong)
    )


def _axes(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def test_a_png_with_all_panels(runs, example, tmp_path):
    figure = draw_comparison(runs, CLASSES, COUNTS, GROUPS, [example] * 2, 'A title')
    figure.savefig(tmp_path / 'figure.png', dpi=40)
    pixels = np.asarray(Image.open(tmp_path / 'figure.png').convert('L'))
    assert pixels.shape[1] == 560
    assert pixels.std() > 10
    assert figure.get_suptitle() == 'A title'
    assert set(_axes(figure)) == {
        'Training losses',
        'AP of each class, by number of training boxes',
    }
    assert len(figure.axes) == 2 + 3 * 2
    rows = [axes.get_ylabel() for axes in figure.axes[2::2]]
    assert rows == ['ground truth', 'FocalLoss', 'DAALLoss']


def test_bars_are_sorted_by_training_count_and_hold_the_ap(runs):
    figure = draw_comparison(runs, CLASSES, COUNTS, GROUPS, [], 'x')
    axes = _axes(figure)['AP of each class, by number of training boxes']
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ['ring\n500', 'cross\n90', 'disc\n20', 'star\n3']
    for container, level in zip(axes.containers, (1.0, 1.2), strict=True):
        heights = [bar.get_height() for bar in container]
        np.testing.assert_allclose(heights, np.array([0.6, 0.3, 0.1, 0.0]) * level)
    texts = [text.get_text() for text in axes.texts]
    assert 'many classes\nFocalLoss 0.600\nDAALLoss 0.720' in texts
    assert 'few classes\nFocalLoss nan\nDAALLoss nan' in texts


def test_each_group_is_one_span_whatever_the_counts(runs):
    """LVIS's rule goes by images, and terciles may end amid equal counts."""
    groups = ('few', 'medium', 'many', 'few')
    figure = draw_comparison(runs, CLASSES, (90, 20, 20, 3), groups, [], 'x')
    axes = _axes(figure)['AP of each class, by number of training boxes']
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ['star\n20', 'ring\n20', 'disc\n90', 'cross\n3']
    spans = [
        (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
        if patch.get_height() == 1
    ]
    assert spans == [(-0.5, 0.5), (0.5, 1.5), (1.5, 3.5)]


def test_curves_hold_the_logged_losses(runs):
    axes = _axes(draw_comparison(runs, CLASSES, COUNTS, GROUPS, [], 'x'))[
        'Training losses'
    ]
    raw = [line for line in axes.lines if line.get_alpha() == 0.2]
    assert len(raw) == 4
    np.testing.assert_array_equal(raw[0].get_ydata(), runs[0].losses['loss_cls'])
    np.testing.assert_array_equal(raw[3].get_ydata(), runs[1].losses['loss_bbox'])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == 'FocalLoss: loss_cls'
    assert axes.get_yscale() == 'log'


def test_examples_mark_wrong_detections_and_leave_out_weak_ones(runs, example):
    figure = draw_comparison(runs, CLASSES, COUNTS, GROUPS, [example], 'x')
    truth, right, wrong = figure.axes[2:]
    assert [t.get_text() for t in truth.texts] == ['star', 'ring']
    assert [t.get_text() for t in right.texts] == ['star 0.90', 'ring 0.31']
    assert [t.get_text() for t in wrong.texts] == ['ring 0.80']
    assert {p.get_linestyle() for p in right.patches} == {'-'}
    assert {p.get_linestyle() for p in wrong.patches} == {':'}


def test_of_the_detections_on_one_object_the_best_is_drawn(runs, example):
    place = example.truth.xyxy[:1]
    boxes = Boxes(
        np.concatenate([place, place + 2, example.truth.xyxy[1:]]),
        np.array([1, 2, 1]),
        np.array([0.4, 0.6, 0.5]),
    )
    example = Example(example.image, example.truth, (boxes, boxes))
    figure = draw_comparison(runs, CLASSES, COUNTS, GROUPS, [example], 'x')
    texts = [text.get_text() for text in figure.axes[3].texts]
    assert texts == ['star 0.60', 'ring 0.50']


def test_no_boxes_and_many_classes_can_be_drawn(tmp_path):
    number = 90
    empty = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    run = TrainedRun(
        'only',
        np.array([10]),
        dict(loss_cls=np.array([1.0])),
        np.full(number, math.nan),
        {},
    )
    example = Example(np.zeros((20, 30, 3), np.uint8), empty, (empty,))
    figure = draw_comparison(
        [run],
        [f'class {i}' for i in range(number)],
        [0] * number,
        ['few'] * number,
        [example],
        'x',
    )
    figure.savefig(tmp_path / 'figure.png', dpi=40)
    assert (tmp_path / 'figure.png').stat().st_size > 2000


def test_no_runs():
    with pytest.raises(ValueError, match='runs is empty'):
        draw_comparison([], CLASSES, COUNTS, GROUPS, [], 'x')


def test_more_runs_than_colours_are_refused(runs):
    with pytest.raises(ValueError, match='runs: expected 5 at most, got 6'):
        draw_comparison(3 * runs, CLASSES, COUNTS, GROUPS, [], '')


def test_lengths_that_disagree_are_named(runs):
    with pytest.raises(ValueError, match="'train_counts': 3, 'groups': 4"):
        draw_comparison(runs, CLASSES, COUNTS[:3], GROUPS, [], 'x')


def test_an_example_lacks_a_run(runs, example):
    with pytest.raises(ValueError, match='detections of 2 runs, expected 1'):
        draw_comparison(runs[:1], CLASSES, COUNTS, GROUPS, [example], 'x')
