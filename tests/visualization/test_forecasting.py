import numpy as np
import pytest

from daal_mmdet.visualization.forecasting import Forecasts, Gains, draw_forecasts

SERIES = np.sin(np.arange(40.0))


def forecasts(name='a', offset=0.1):
    first = np.array([24, 28, 32])
    return Forecasts(name, first, SERIES[first[:, None] + np.arange(4)] + offset)


def test_lines_show_the_forecasts_from_the_last_known_value():
    figure = draw_forecasts(SERIES, [forecasts('a'), forecasts('b', -0.2)], [], 1700)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ['truth', 'a', 'b']
    lines = [line for line in axes.lines if len(line.get_xdata()) == 5]
    assert len(lines) == 6
    np.testing.assert_array_equal(lines[0].get_xdata(), 1700 + np.arange(23, 28))
    np.testing.assert_allclose(
        lines[0].get_ydata(), [SERIES[23], *(SERIES[24:28] + 0.1)]
    )
    np.testing.assert_allclose(
        lines[5].get_ydata(), [SERIES[31], *(SERIES[32:36] - 0.2)]
    )


def test_gains_are_drawn_under_the_targets_that_made_them():
    targets = SERIES[:20]
    gains = [
        Gains('ad, clean', targets, np.linspace(0.2, 0.8, 20)),
        Gains('ad, noisy', targets + 1, np.linspace(0.8, 0.2, 20)),
        Gains('kalman, clean', targets, np.full(20, 0.6)),
    ]
    figure = draw_forecasts(SERIES, [forecasts()], gains, title='A title')
    _, below, curves = figure.axes
    # Equal targets are drawn once.
    assert [line.get_ydata().tolist() for line in below.lines] == [
        targets.tolist(),
        (targets + 1).tolist(),
    ]
    assert len(curves.lines) == 3
    np.testing.assert_allclose(curves.lines[1].get_ydata(), gains[1].gain)
    assert below.lines[1].get_color() == curves.lines[1].get_color()
    assert figure.get_suptitle() == 'A title'


def test_no_loss_is_left_out_however_many_there_are():
    many = [forecasts(str(i)) for i in range(7)]
    gains = [Gains(str(i), SERIES[:20], np.full(20, 0.1 * i)) for i in range(7)]
    axes, _, curves = draw_forecasts(SERIES, many, gains).axes
    assert len([line for line in axes.lines if len(line.get_xdata()) == 5]) == 7 * 3
    assert len(curves.lines) == 7
    assert len(curves.get_legend().get_texts()) == 7
    looks = {(line.get_color(), line.get_linestyle()) for line in curves.lines}
    assert len(looks) == 7
    named = [line for line in axes.lines if line.get_label() in map(str, range(7))]
    assert len({(line.get_color(), line.get_linestyle()) for line in named}) == 7


def test_errors_are_named():
    with pytest.raises(ValueError, match='forecasts is empty: nothing to draw'):
        draw_forecasts(SERIES, [], [])
    with pytest.raises(
        ValueError, match=r"'a' reach from step 24 to 36, outside .* 35"
    ):
        draw_forecasts(SERIES[:35], [forecasts()], [])
