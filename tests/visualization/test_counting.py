import numpy as np
import pytest
import torch
from matplotlib.image import imread
from mmdet.registry import VISUALIZERS
from mmengine.structures import BaseDataElement

from daal_mmdet.visualization.count_grid import CountedImage, draw_count_grid
from daal_mmdet.visualization.density_overlay import overlay_density
from daal_mmdet.visualization.scheme_curves import SchemeCurves, draw_scheme_curves


def test_overlay_colours_the_crowded_places_alone():
    image = np.full((32, 48, 3), 120, np.uint8)
    density = np.zeros((4, 6))
    density[1, 4] = 2.0
    drawn = overlay_density(image, density)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    changed = np.argwhere((drawn != image).any(-1)).mean(axis=0)
    # The middle of cell (1, 4).
    np.testing.assert_allclose(changed, [11.5, 35.5], atol=1.0)
    assert (drawn[:, :16] == image[:, :16]).all()
    # Red where it is densest, and less so on a longer scale.
    assert drawn[12, 36, 0] > drawn[12, 36, 2]
    assert not (overlay_density(image, density, top=10.0) == drawn).all()


@pytest.mark.parametrize('value', [0.0, -1.0])
def test_overlay_of_nobody_is_the_image(value):
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    drawn = overlay_density(image, np.full((1, 1), value))
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image


@pytest.fixture
def visualizer(tmp_path):
    return VISUALIZERS.build(
        dict(
            type='CountingVisualizer',
            name=str(tmp_path),
            vis_backends=[dict(type='LocalVisBackend')],
            save_dir=str(tmp_path),
        )
    )


def sample(**changes):
    density = torch.zeros(5, 8)
    density[1, 2] = 3.0
    data = dict(
        gt_density=density,
        gt_count=3,
        pred_density=2 * density,
        pred_count=torch.tensor(6.0),
    )
    return BaseDataElement(metainfo=dict(map_shape=(5, 7)), **(data | changes))


def test_visualizer_shows_truth_beside_prediction(visualizer, tmp_path):
    image = np.full((40, 50, 3), 90, np.uint8)
    out = tmp_path / 'shown' / 'a.png'
    # As mmdet's hook calls it.
    visualizer.add_datasample(
        'a',
        image,
        data_sample=sample(),
        show=False,
        wait_time=0,
        pred_score_thr=0.3,
        out_file=str(out),
        step=1,
    )
    drawn = imread(out)
    assert drawn.shape[:2] == (40, 100)
    assert np.ptp(drawn[..., :3]) > 0.5
    for options, width in (
        (dict(draw_gt=False), 50),
        (dict(draw_pred=False), 50),
        (dict(draw_gt=False, draw_pred=False), 50),
    ):
        visualizer.add_datasample('b', image, sample(), out_file=out, **options)
        assert imread(out).shape[:2] == (40, width)
    np.testing.assert_array_equal(visualizer.get_image(), image)


def test_truth_and_prediction_have_one_scale(visualizer, tmp_path):
    image = np.full((160, 224, 3), 90, np.uint8)

    def halves(**changes):
        visualizer.add_datasample(
            'a', image, sample(**changes), out_file=tmp_path / 'a.png'
        )
        drawn = imread(tmp_path / 'a.png')[..., :3]
        # Below the captions.
        return drawn[64:, :224], drawn[64:, 224:]

    same = torch.zeros(5, 8)
    same[3, 2] = 3.0
    truth, right = halves(gt_density=same, pred_density=same)
    np.testing.assert_array_equal(truth, right)
    for density, other in ((same / 100, True), (same, False)):
        truth_beside, shown = halves(gt_density=same, pred_density=density)
        np.testing.assert_array_equal(truth_beside, truth)
        assert (np.abs(shown - right).max() > 0.1) == other
    # Nobody is there, and somebody is found.
    _, found = halves(gt_density=torch.zeros(5, 8), gt_count=0, pred_density=same / 9)
    np.testing.assert_array_equal(found, right)


def test_visualizer_hands_pictures_to_its_backends(visualizer, tmp_path):
    image = np.full((40, 50, 3), 90, np.uint8)
    visualizer.add_datasample('crowd', image, sample(), step=7)
    visualizer.add_datasample('alone', image, None, step=8)
    names = {path.name for path in (tmp_path / 'vis_data' / 'vis_image').iterdir()}
    assert names == {'crowd_7.png', 'alone_8.png'}


def curves(name, runs=3, steps=80, **changes):
    rng = np.random.default_rng(0)
    values = np.exp(-np.arange(steps) / 30) + rng.random((runs, steps)) / 10
    fields = dict(total=values, task=values) | changes
    return SchemeCurves(name, 10 * np.arange(1, steps + 1), **fields)


def test_curves_of_all_schemes_are_in_one_figure():
    plain = curves('CSRNet')
    bnm = np.full((3, 80), 0.4)
    schemes = [plain, curves('A-BNM', factor=np.full((3, 80), 0.05), bnm=bnm)]
    figure = draw_scheme_curves(schemes, 'title')
    total, task, term, factor = figure.axes
    labels = [text.get_text() for text in total.get_legend().get_texts()]
    assert labels == ['CSRNet', 'A-BNM']
    assert [len(axes.get_lines()) for axes in figure.axes] == [2, 2, 1, 1]
    assert total.get_yscale() == 'log'
    # The median of the runs, smoothed over nine entries.
    middle = np.median(plain.total, axis=0)
    line = total.get_lines()[0].get_ydata()
    assert line[40] == pytest.approx(middle[36:45].mean())
    assert line[0] == pytest.approx(middle[:5].mean())
    assert (factor.get_lines()[0].get_ydata() == pytest.approx(0.05)) is True


def test_losses_below_zero_get_a_linear_axis():
    raw = curves('raw', total=np.linspace(1, -5, 80)[None], task=np.ones((1, 80)))
    figure = draw_scheme_curves([raw])
    assert figure.axes[0].get_yscale() == 'linear'
    assert figure.axes[1].get_yscale() == 'log'


def test_bad_curves_are_named():
    with pytest.raises(ValueError, match='schemes is empty: nothing to draw'):
        draw_scheme_curves([])
    with pytest.raises(ValueError, match=r"task of 'a': expected shape \(runs, 80\)"):
        draw_scheme_curves([curves('a', task=np.zeros((3, 79)))])


def counted(name, schemes=('A-BNM', 'CSRNet'), height=40):
    truth = np.zeros((5, 8))
    truth[1, 2] = 3.0
    image = np.full((height, 60, 3), 90, np.uint8)
    maps = {s: (i + 1) * truth for i, s in enumerate(schemes)}
    return CountedImage(name, image, truth, 3, maps)


def test_grid_names_counts_above_maps_of_one_scale():
    figure = draw_count_grid([counted('1'), counted('2', height=90)], 'title')
    titles = [axes.get_title() for axes in figure.axes]
    row = ['ground truth: 3', 'A-BNM: 3', 'CSRNet: 6']
    assert titles == ['image 1', *row, 'image 2', *row]
    limits = {axes.get_images()[0].get_clim() for axes in figure.axes[1:4]}
    assert len(limits) == 1
    assert limits.pop()[0] == 0
    figure = draw_count_grid([counted('1')], photos=False)
    assert [axes.get_title() for axes in figure.axes] == row
    # Nobody there: no division by a scale of zero.
    empty = CountedImage('3', np.zeros((8, 8, 3), np.uint8), np.zeros((1, 1)), 0, {})
    assert len(draw_count_grid([empty]).axes) == 2


def test_bad_grids_are_named():
    with pytest.raises(ValueError, match='images is empty: nothing to draw'):
        draw_count_grid([])
    with pytest.raises(ValueError, match=r"predicted: image '2' has \['b'\], '1' has"):
        draw_count_grid([counted('1', ['a']), counted('2', ['b'])])
