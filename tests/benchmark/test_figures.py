import dataclasses
import json

import numpy as np
import pytest

from daal_mmdet.benchmark.figures import benchmark_figures


def write_log(folder, level, ends, validate=True):
    """What MMEngine logs in a training of 4 epochs of 10 iterations."""
    folder = folder / str(ends[0]) / 'vis_data'
    folder.mkdir(parents=True)
    lines = []
    for step in range(ends[0] + 5, ends[1] + 1, 5):
        entry = dict(loss=2.0, loss_cls=level / step, loss_bbox=1.0, step=step)
        entry |= dict(daal_lambda=0.05 - level / step)
        entry |= {'kalman_log_det_0': -1.0, 'kalman_log_det_1': -3.0 - level}
        entry |= {f'kalman_rpn_head_log_det_{i}': -2.75 for i in range(2)}
        # A level that was never measured.
        entry['kalman_log_det_2'] = float('nan')
        lines.append(entry)
        if step % 20 == 0 and validate:
            ap = {f'coco/{name}_precision': level / 10 for name in ('cat', 'cow')}
            ap['coco/dog_precision'] = float('nan')
            lines.append(ap | {'coco/bbox_mAP': level / 4, 'step': step // 10})
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (folder / 'scalars.json').write_text(text)


def record(variant, seed, mAP, **more):
    part = dict(mAP=mAP, class_AP=dict(cat=mAP / 2, dog=None, cow=mAP / 4))
    made = dict(data='toy', variant=variant, seed=seed, val=part, test=part)
    return made | dict(work_dir=f'runs/{variant}{seed}') | more


@pytest.fixture
def records(tmp_path):
    made = [record(v, s, 0.1 + s / 10) for v in ('one', 'two') for s in (0, 1)]
    for each in made:
        level = 1 + each['seed'] + (each['variant'] == 'two')
        folder = tmp_path / each['work_dir']
        # Stopped after half of it, and gone on with.
        write_log(folder, level, (0, 20))
        write_log(folder, level, (20, 40))
    return made


def draw(records, spec, tmp_path, split='test'):
    run = spec.plan()[0]
    return dict(benchmark_figures(records, spec, tmp_path, run, split))


def test_all_figures_of_finished_runs(spec, records, tmp_path):
    spec = dataclasses.replace(spec, compare=('mAP', 'rare'))
    figures = draw(records, spec, tmp_path)
    names = ['losses', 'adaptation', 'val_curve', 'test_class_ap', 'test_differences']
    assert list(figures) == names
    assert (
        figures['losses']
        .get_suptitle()
        .startswith('Training losses: toy, 4 epochs, from scratch')
    )
    titles = {n: [axes.get_title() for axes in f.axes] for n, f in figures.items()}
    assert [title[:8] for title in titles['losses']] == ['loss_cls', 'loss_bbo']
    assert titles['val_curve'] == ['mAP', 'rare']
    assert titles['test_differences'] == ['mAP', 'rare']

    steps = np.arange(5, 41, 5)
    proportion, log_det = figures['adaptation'].axes
    # Two seeds, of levels 1 and 2.
    np.testing.assert_array_equal(proportion.lines[0].get_xdata(), steps)
    np.testing.assert_allclose(
        proportion.lines[0].get_ydata(), 0.05 - 1.5 / steps, atol=1e-12
    )
    # The mean of -1 and -4.5, over the levels of the heads and the seeds.
    np.testing.assert_allclose(log_det.lines[0].get_ydata(), -2.75)

    mAP, rare = figures['val_curve'].axes
    assert list(mAP.lines[1].get_xdata()) == [2, 4]
    np.testing.assert_allclose(mAP.lines[1].get_ydata(), 2.5 / 4)
    np.testing.assert_allclose(rare.lines[1].get_ydata(), 0.25)
    assert mAP.get_xlabel() == 'epoch'


def test_a_figure_that_only_the_test_part_has_has_no_curve(spec, records, tmp_path):
    for each in records:
        each['test'] = each['test'] | dict(mAP_few=0.1)
    spec = dataclasses.replace(spec, compare=('mAP', 'mAP_few'))
    figures = draw(records, spec, tmp_path)
    assert [a.get_title() for a in figures['val_curve'].axes] == ['mAP']
    titles = [a.get_title() for a in figures['test_differences'].axes]
    assert titles == ['mAP', 'mAP_few']


def test_a_validation_that_found_nothing_is_a_point_at_zero(spec, records, tmp_path):
    for each in records:
        path = tmp_path / each['work_dir'] / '0' / 'vis_data' / 'scalars.json'
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        # What CocoMetric leaves to log.
        lines = [
            entry if 'loss' in entry else dict(time=0.1, step=entry['step'])
            for entry in lines
        ]
        path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    for axes in draw(records, spec, tmp_path)['val_curve'].axes:
        for curve in axes.lines[:2]:
            assert list(curve.get_xdata()) == [2, 4]
            assert curve.get_ydata()[0] == 0 < curve.get_ydata()[1]


def test_class_ap_uses_the_counts_of_the_training_annotations(spec, records, tmp_path):
    run = spec.plan()[0]
    ticks = {}
    for known in (False, True):
        if known:
            names = ['cat', 'dog', 'cow']
            document = dict(
                images=[dict(id=0)],
                categories=[dict(id=i, name=name) for i, name in enumerate(names)],
                annotations=[dict(image_id=0, category_id=c) for c in (0, 2, 2)],
            )
            (tmp_path / 'train.json').write_text(json.dumps(document))
        inner = dict(data_root=f'{tmp_path}/', ann_file='train.json')
        run.config.train_dataloader = dict(dataset=dict(dataset=inner))
        figures = dict(benchmark_figures(records, spec, tmp_path, run))
        labels = figures['test_class_ap'].axes[0].get_xticklabels()
        ticks[known] = [label.get_text() for label in labels]
    assert ticks == {
        False: ['cat', 'dog', 'cow'],
        True: ['cow\n2', 'cat\n1', 'dog\n0'],
    }


def test_only_what_there_is(spec, records, tmp_path):
    # Records made by hand have no logs; one variant has no difference.
    bare = [dict(r) for r in records if r['variant'] == 'one']
    for each in bare:
        del each['work_dir']
    assert list(draw(bare, spec, tmp_path)) == ['test_class_ap']
    assert list(draw([r | dict(test=None) for r in bare], spec, tmp_path)) == []
    assert list(draw([], spec, tmp_path)) == []
    lone = [record('one', 5, 0.2), record('two', 5, 0.1)]
    write_log(tmp_path / 'runs' / 'one5', 1, (0, 40), validate=False)
    spec = dataclasses.replace(spec, seeds=(5,))
    names = ['losses', 'adaptation', 'test_class_ap', 'test_differences']
    figures = draw(lone, spec, tmp_path)
    assert list(figures) == names
