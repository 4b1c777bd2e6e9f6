import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from daal_mmdet.visualization.class_ticks import set_class_ticks, short_name


@pytest.fixture
def axes():
    figure = Figure(figsize=(6, 4), layout='constrained')
    FigureCanvasAgg(figure)
    return figure.subplots()


def ticks(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def overlaps(axes):
    axes.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    return any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))


def test_short_names_lie_above_their_counts(axes):
    set_class_ticks(axes, axes.figure, ['cat', 'dog'], [5, 3])
    assert ticks(axes) == ['cat\n5', 'dog\n3']
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {0}
    assert axes.get_xlim() == (-0.5, 1.5)
    set_class_ticks(axes, axes.figure, ['cat', 'dog'])
    assert ticks(axes) == ['cat', 'dog']


@pytest.mark.parametrize('number', [8, 45])
def test_names_that_would_touch_stand_upright(axes, number):
    names = [f'traffic light {i}' for i in range(number)]
    set_class_ticks(axes, axes.figure, names, range(number))
    assert ticks(axes) == [f'traffic light {i} {i}' for i in range(number)]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {90}
    assert not overlaps(axes)


def test_long_names_are_cut():
    assert short_name('twenty characters it') == 'twenty characters it'
    assert short_name('twenty-one characters') == 'twenty-one characte…'


def test_counts_of_other_classes(axes):
    with pytest.raises(ValueError, match='shorter'):
        set_class_ticks(axes, axes.figure, ['cat', 'dog'], [1])
