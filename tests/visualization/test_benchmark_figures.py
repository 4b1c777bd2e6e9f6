import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from daal_mmdet.visualization.benchmark_figures import (
    Difference,
    Panel,
    SeedCurves,
    draw_class_ap,
    draw_differences,
    draw_panels,
)
from daal_mmdet.visualization.running_mean import running_mean

VARIANTS = ['FocalLoss', 'DAALLoss', 'GHMC']
STEPS = np.arange(10, 210, 10)


def curves(level, seeds=3):
    rng = np.random.default_rng(0)
    return SeedCurves(STEPS, level + rng.uniform(size=(seeds, len(STEPS))))


def pixels(figure, tmp_path):
    figure.savefig(tmp_path / 'figure.png', dpi=40)
    return np.asarray(Image.open(tmp_path / 'figure.png').convert('L'))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_are_means_with_a_band(tmp_path):
    plain, loss = {'DAALLoss': curves(1)}, {name: curves(2) for name in VARIANTS[:2]}
    panels = [
        Panel('gain', plain),
        Panel('nobody logs this', {}),
        Panel('loss', loss, log_scale=True, smooth=True),
    ]
    figure = draw_panels(panels, VARIANTS, 'A title', 'epoch')
    assert pixels(figure, tmp_path).std() > 10
    assert figure.get_suptitle() == 'A title'
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ('gain', 'loss')
    assert {axes.get_xlabel() for axes in figure.axes} == {'epoch'}
    assert (left.get_yscale(), right.get_yscale()) == ('linear', 'log')
    np.testing.assert_allclose(
        left.lines[0].get_ydata(), plain['DAALLoss'].values.mean(axis=0)
    )
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == plain['DAALLoss'].values.min()
    assert band.max() == plain['DAALLoss'].values.max()
    smooth = np.mean([running_mean(row) for row in loss['FocalLoss'].values], axis=0)
    np.testing.assert_allclose(right.lines[0].get_ydata(), smooth)
    # A variant has one colour throughout; one without curves is not in the legend.
    assert left.lines[0].get_color() == right.lines[1].get_color()
    assert right.lines[0].get_color() != right.lines[1].get_color()
    assert legend(figure) == VARIANTS[:2]


def test_one_seed_has_no_band_and_one_step_is_a_dot():
    single = SeedCurves(np.array([4]), np.array([[0.5]]))
    figure = draw_panels([Panel('AP', {'GHMC': single})], VARIANTS, '')
    (axes,) = figure.axes
    assert not axes.collections
    assert axes.lines[0].get_marker() == 'o'


def test_as_many_variants_as_an_ablation_has_differ_in_colour():
    names = [f'variant {i}' for i in range(20)]
    panel = Panel('loss', {name: curves(i) for i, name in enumerate(names)})
    figure = draw_panels([panel], names, 'title', 'iteration')
    handles = figure.legends[0].legend_handles
    assert len({to_hex(handle.get_color()) for handle in handles}) == 20


def test_no_curves():
    with pytest.raises(ValueError, match='panels: expected at least one with a curve'):
        draw_panels([Panel('gain', {})], VARIANTS, '')


def class_ap(classes, seeds=3):
    values = np.random.default_rng(1).uniform(size=(seeds, classes))
    return {'FocalLoss': values, 'GHMC': values / 2}


def test_class_ap_is_ordered_by_training_boxes(tmp_path):
    values = class_ap(3)
    values['GHMC'][:, 1] = np.nan
    figure = draw_class_ap(values, ['a', 'b', 'c'], [5, 90, 20], VARIANTS, 'A title')
    assert pixels(figure, tmp_path).std() > 10
    (axes,) = figure.axes
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ['b\n90', 'c\n20', 'a\n5']
    focal, ghmc = axes.containers
    np.testing.assert_allclose(
        focal.lines[0].get_ydata(), values['FocalLoss'].mean(axis=0)[[1, 2, 0]]
    )
    # Without ground truth there is no dot.
    np.testing.assert_allclose(
        ghmc.lines[0].get_ydata(), values['GHMC'].mean(axis=0)[[2, 0]]
    )
    (_, _, (bars,)) = focal
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    lowest, highest = values['FocalLoss'].min(axis=0), values['FocalLoss'].max(axis=0)
    np.testing.assert_allclose(ends, np.stack([lowest, highest], axis=1)[[1, 2, 0]])
    # GHMC is the third variant, though the second with runs.
    curve = (
        draw_panels([Panel('x', {'GHMC': curves(1)})], VARIANTS, '').axes[0].lines[0]
    )
    assert to_hex(ghmc.lines[0].get_color()) == to_hex(curve.get_color())
    assert legend(figure) == ['FocalLoss', 'GHMC']


def test_many_classes_without_counts_keep_their_order(tmp_path):
    names = [f'class {i}' for i in range(80)]
    figure = draw_class_ap(class_ap(80), names, None, VARIANTS, '')
    assert pixels(figure, tmp_path).shape[1] == 22 * 40
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == names


def test_lengths_that_disagree_are_named():
    with pytest.raises(ValueError, match="'classes': 2, 'class_ap of FocalLoss': 3"):
        draw_class_ap(class_ap(3), ['a', 'b'], None, VARIANTS, '')
    with pytest.raises(ValueError, match="'counts': 1}"):
        draw_class_ap(class_ap(3), ['a', 'b', 'c'], [1], VARIANTS, '')


def test_differences_show_seeds_mean_and_interval(tmp_path):
    pairs = np.array([0.01, 0.03, 0.05])
    differences = {
        'mAP': {
            'DAALLoss': Difference(pairs, (0.012, 0.045)),
            'GHMC': Difference(pairs[:1], None),
        },
        'few': {'DAALLoss': Difference(-2 * pairs, (-0.09, -0.03))},
    }
    figure = draw_differences(differences, VARIANTS, 'FocalLoss', 'A title')
    assert pixels(figure, tmp_path).std() > 10
    all_classes, few = figure.axes
    labels = [label.get_text() for label in all_classes.get_yticklabels()]
    assert labels == ['DAALLoss', 'GHMC']
    seeds, interval, mean = all_classes.lines[:3]
    np.testing.assert_array_equal(seeds.get_xdata(), pairs)
    assert tuple(interval.get_xdata()) == (0.012, 0.045)
    assert mean.get_xdata() == pytest.approx([0.03])
    # A single pair has no interval: dots, mean, zero line.
    assert len(all_classes.lines) == 3 + 2 + 1
    for axes in (all_classes, few):
        low, high = axes.get_xlim()
        assert low == -high
        assert axes.get_xlabel() == 'difference to FocalLoss'


def test_a_long_title_is_broken_into_lines():
    differences = {'mAP': {'DAALLoss': Difference(np.array([0.01, 0.03]), None)}}
    title = 'Paired differences to FocalLoss on a data set that has a long name ' * 2
    figure = draw_differences(differences, VARIANTS, 'FocalLoss', title)
    figure.draw_without_rendering()
    (drawn,) = [text for text in figure.texts if text.get_text() == title]
    box = drawn.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    # The axes make room.
    assert figure.axes[0].get_window_extent().y1 < box.y0


def test_no_differences():
    with pytest.raises(ValueError, match='differences: expected at least one metric'):
        draw_differences({}, VARIANTS, 'FocalLoss', '')
