import numpy as np
import pytest

from daal_mmdet.visualization.covariance_maps import draw_covariance


def maps(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    deviations = [rng.uniform(0.05, 0.4, shape) for shape in shapes]
    return deviations, [rng.uniform(size=shape) > 0.2 for shape in shapes]


def test_a_map_for_each_level_and_template():
    deviations, measured = maps((4, 5, 3), (2, 3, 1))
    figure = draw_covariance(deviations, measured, 'A head')
    shown = [axes for axes in figure.axes[:6] if axes.get_visible()]
    assert len(shown) == 4
    image = shown[1].images[0].get_array()
    expected = np.where(measured[0], deviations[0], np.nan)[..., 1]
    np.testing.assert_array_equal(image.filled(np.nan), expected)
    assert [axes.get_title() for axes in shown] == [
        'template 0',
        'template 1',
        'template 2',
        '',
    ]
    assert shown[0].get_ylabel() == 'level 0\n4 x 5'
    assert shown[3].get_ylabel() == 'level 1\n2 x 3'
    # One scale for all.
    assert len({axes.images[0].get_clim() for axes in shown}) == 1
    assert figure.get_suptitle() == 'A head'


@pytest.mark.parametrize('shape', [(1, 1, 3), (1, 3, 1)])
def test_heads_without_a_grid_are_one_picture(shape):
    deviations, measured = maps(shape, shape)
    figure = draw_covariance(deviations, measured, template_names=['a', 'b', 'c'])
    axes, _ = figure.axes
    expected = [
        np.where(known, deviation, np.nan).ravel()
        for deviation, known in zip(deviations, measured, strict=True)
    ]
    image = axes.images[0].get_array().filled(np.nan)
    np.testing.assert_array_equal(image, expected)
    assert [label.get_text() for label in axes.get_xticklabels()] == ['a', 'b', 'c']


def test_nothing_measured_and_nothing_at_all():
    figure = draw_covariance([np.ones((2, 2, 1))], [np.zeros((2, 2, 1), bool)])
    assert figure.axes[0].images[0].get_array().mask.all()
    with pytest.raises(ValueError, match='expected at least one level, got none'):
        draw_covariance([], [])
