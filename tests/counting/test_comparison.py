"""From the shipped configs through MMEngine's runner to records, table and pictures."""

import copy
import json
import math
import re
import shutil
import zlib
from pathlib import Path

import count_crowds
import numpy as np
import plot_schemes
import pytest
import torch
from matplotlib.image import imread
from mmengine.config import Config
from PIL import Image

from daal_mmdet.counting import comparison
from daal_mmdet.counting.comparison import latest_records, paired_runs, run_schemes
from daal_mmdet.counting.comparison_table import scheme_table
from daal_mmdet.counting.crowd_scenes import (
    write_shanghaitech_layout,
    write_ucf_cc_50_layout,
)
from daal_mmdet.counting.finished_run import FinishedRun
from daal_mmdet.preflight import hold_folder
from daal_mmdet.run_records import append_record, read_records

CONFIGS = Path(__file__).parents[2] / 'configs' / 'counting'
SMALL = ['model.width=0.0625', 'train_cfg.max_iters=2']
LOG = ['default_hooks.logger.interval=1', 'default_hooks.checkpoint.interval=2']


def small(name, root):
    config = Config.fromfile(CONFIGS / f'{name}.py')
    config.model.update(width=1 / 16)
    config.train_cfg.max_iters = 3
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = 3
    for loader in ('train', 'test'):
        dataset = config[f'{loader}_dataloader'].dataset
        dataset.data_root = str(root)
        for step in dataset.pipeline:
            if step.type == 'LoadDensityMap':
                step.cache_dir = None
    return config


@pytest.fixture(scope='module')
def part_b(tmp_path_factory):
    root = tmp_path_factory.mktemp('part_b')
    write_shanghaitech_layout(root, [3, 9, 0], [4, 8], size=(40, 52))
    return root


@pytest.fixture(scope='module')
def finished(part_b, tmp_path_factory):
    """Two schemes, trained for real."""
    folder = tmp_path_factory.mktemp('finished')
    configs = {
        name: small(f'csrnet_small_shanghaitech_b{ending}', part_b)
        for name, ending in (('CSRNet', ''), ('CSRNet + A-BNM', '_abnm'))
    }
    return folder, configs, run_schemes(configs, [None], [0], folder)


def test_records_hold_what_was_counted(finished):
    folder, _, records = finished
    assert read_records(folder / 'runs.jsonl') == records
    assert [record['scheme'] for record in records] == ['CSRNet', 'CSRNet + A-BNM']
    for record in records:
        assert record['train_mean'] == 4
        assert [truth for truth, _ in record['counts'].values()] == [4, 8]
        errors = [found - truth for truth, found in record['counts'].values()]
        assert record['MAE'] == pytest.approx(np.abs(errors).mean(), abs=0.01)
        assert record['bias'] == pytest.approx(np.mean(errors), abs=0.01)


def test_each_run_logs_into_its_own_folder(finished):
    folder, _, records = finished
    plain, adaptive = (FinishedRun(folder, record) for record in records)
    for run in (plain, adaptive):
        steps, values = run.curve('loss')
        assert steps.tolist() == [1, 2, 3]
        assert (values > 0).all()
    # The same first crop and weights; the proportion starts at 0.
    assert plain.curve('loss')[1][0] == adaptive.curve('loss')[1][0]
    assert not len(plain.curve('counting_lambda')[0])
    assert len(adaptive.curve('counting_lambda')[0])


def test_a_finished_run_predicts_as_its_evaluation_did(finished):
    folder, _, records = finished
    run = FinishedRun(folder, records[1])
    for name, (truth, predicted) in run.counts.items():
        path, true_map, density = run.predict(name)
        assert path.stem == name
        # 40 x 52 pixels at half size.
        assert density.shape == true_map.shape == (3, 4)
        assert true_map.sum() == pytest.approx(truth, rel=1e-4)
        assert density.sum() == pytest.approx(predicted, abs=0.01)
    with pytest.raises(FileNotFoundError, match='expected a configuration and last_'):
        FinishedRun(folder, records[0] | {'work_dir': 'runs/none'})


def test_curves_are_of_the_iterations_that_all_runs_logged(finished):
    folder, _, records = finished
    for scheme in plot_schemes.curves_of(folder, [*records, *records]):
        assert scheme.iterations.tolist() == [2, 3]
        for curve in (scheme.total, scheme.task):
            assert curve.shape == (2, 2)
        run = FinishedRun(folder, {r['scheme']: r for r in records}[scheme.name])
        assert scheme.total[0].tolist() == run.curve('loss')[1][1:].tolist()
        assert (scheme.factor is None) == (scheme.name == 'CSRNet')


def test_the_schemes_train_differently(finished):
    folder, _, records = finished
    weights = [
        torch.load(folder / r['work_dir'] / 'iter_3.pth', weights_only=False)
        for r in records
    ]
    plain, adaptive = (w['state_dict'] for w in weights)
    assert 'loss_density.proportion.gain' in adaptive
    assert 'loss_density.proportion.gain' not in plain
    assert not torch.equal(
        plain['output_layer.weight'], adaptive['output_layer.weight']
    )


@pytest.fixture
def trained(monkeypatch):
    """Replace training by a number that the config determines; list the configs."""
    configs = []

    def train_once(config, work_dir):
        configs.append(config.to_dict())
        number = zlib.crc32(json.dumps(configs[-1], sort_keys=True).encode())
        counts = {'1': [10.0, 3.0], '2': [30.0, 4.0]}
        rest = dict(RMSE=10.0, bias=0.0, counts=counts, train_mean=12.0)
        return dict(MAE=float(number % 1000), **rest)

    monkeypatch.setattr(comparison, 'train_once', train_once)
    return configs


@pytest.fixture
def ucf(tmp_path):
    write_ucf_cc_50_layout(tmp_path / 'ucf', [i % 7 for i in range(50)], (40, 40))
    return tmp_path / 'ucf'


def test_a_comparison_resumes_after_a_kill(tmp_path, ucf, trained):
    configs = {
        name: small(f'csrnet_small_ucf_cc_50{ending}', ucf)
        for name, ending in (('a', ''), ('b', '_bnm'))
    }
    before = {name: config.to_dict() for name, config in configs.items()}
    arguments = (configs, [0, 3], [0, 1], tmp_path / 'out')
    seen = []
    records = run_schemes(*arguments, on_done=seen.append)
    assert seen == records
    assert len({(r['scheme'], r['fold'], r['seed']) for r in records}) == 8
    assert len(trained) == 8
    assert run_schemes(*arguments) == records
    assert len(trained) == 8

    path = tmp_path / 'out' / 'runs.jsonl'
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(lines[:-1]) + '\n' + lines[-1][:20])
    assert run_schemes(*arguments) == records
    assert len(trained) == 9
    # Another configuration is another run.
    assert {name: config.to_dict() for name, config in configs.items()} == before
    configs['b'].model.loss.bnm_weight = 0.5
    changed = run_schemes(*arguments)
    assert len(trained) == 9 + 4
    # A report holds the last of several.
    latest = {(r['scheme'], r['fold'], r['seed']): r for r in changed}
    for found in latest_records(tmp_path / 'out'):
        assert found == latest.pop((found['scheme'], found['fold'], found['seed']))
    assert not latest


def test_another_data_set_is_another_run_and_a_copy_elsewhere_is_not(
    tmp_path, part_b, trained
):
    def run(root):
        configs = {'a': small('csrnet_small_shanghaitech_b', root)}
        return run_schemes(configs, [None], [0], tmp_path / 'out')

    first = run(part_b)
    copied = shutil.copytree(part_b, tmp_path / 'copy')
    assert run(copied) == first
    assert len(trained) == 1
    # One head more, an image that is smaller, one that looks otherwise.
    write_shanghaitech_layout(tmp_path / 'more', [3, 9, 0], [4, 9], size=(40, 52))
    write_shanghaitech_layout(tmp_path / 'small', [3, 9, 0], [4, 8], size=(40, 48))
    image = copied / 'train_data' / 'images' / 'IMG_2.jpg'
    Image.new('RGB', (52, 40)).save(image)
    for root in (tmp_path / 'more', tmp_path / 'small', copied):
        (other,) = run(root)
        assert other['data'] != first[0]['data']
        assert other['config'] == first[0]['config']
    assert len(trained) == 4
    # A line of before the digest does not say what it is of.
    path = tmp_path / 'out' / 'runs.jsonl'
    del first[0]['data']
    path.write_text(json.dumps(first[0]) + '\n')
    run(part_b)
    assert len(trained) == 5


def test_a_report_refuses_runs_of_several_data_sets(tmp_path, capsys):
    runs = [record(scheme, None, 5.0) for scheme in 'aba']
    runs[2]['seed'] = 1
    for run, data in zip(runs, ('one', 'one', 'other'), strict=True):
        append_record(tmp_path / 'runs.jsonl', run | {'data': data})
    text = (
        f'{tmp_path / "runs.jsonl"}: expected runs of the same data, got others for '
        '(a, seed 0) and (a, seed 1); give each data set a folder of its own'
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        latest_records(tmp_path)
    plain = str(CONFIGS / 'csrnet_small_shanghaitech_b.py')
    with pytest.raises(SystemExit, match=re.escape(f'--report: {text}')):
        count_crowds.main([plain, '--report', '--out', str(tmp_path)])
    with pytest.raises(SystemExit):
        plot_schemes.main([str(tmp_path), '--grid', str(tmp_path / 'grid.png')])
    assert text in capsys.readouterr().err
    # The folds of a data set hold different images; runs of one fold do not.
    append_record(tmp_path / 'runs.jsonl', runs[2] | {'data': 'one'})
    append_record(tmp_path / 'runs.jsonl', record('a', 3, 5.0) | {'data': 'fold'})
    assert len(latest_records(tmp_path)) == 4


def test_a_report_is_of_the_settings_that_are_asked_for(tmp_path, ucf, trained, capsys):
    """Not of those that a later call with other settings has begun with."""
    common = [str(CONFIGS / 'csrnet_small_ucf_cc_50.py'), '--out', str(tmp_path)]
    common += ['--data-root', str(ucf), '--schemes', 'CSRNet', 'CSRNet + BNM']
    with (
        hold_folder('--out', tmp_path),
        pytest.raises(SystemExit, match='^--out: another process is at work in'),
    ):
        count_crowds.main([*common, '--folds', '0', '--seeds', '2'])
    count_crowds.main([*common, '--folds', '0', '--seeds', '2'])
    other = ['--cfg-options', 'train_cfg.max_iters=20']
    plain = [*common[:-2], 'CSRNet', '--folds', '0', *other]
    count_crowds.main(plain)
    records = read_records(tmp_path / 'runs.jsonl')
    assert len(records) == 5
    latest = [r['MAE'] for r in latest_records(tmp_path)]
    assert records[4]['MAE'] in latest
    assert records[0]['MAE'] not in latest

    def reported(*arguments):
        capsys.readouterr()
        count_crowds.main([*common, '--report', *arguments])
        return capsys.readouterr().out

    shown = reported()
    assert shown.startswith('1 other runs are no part of the table\n')
    assert f'{np.mean([records[0]["MAE"], records[2]["MAE"]]):.1f}' in shown
    assert f'{records[4]["MAE"]:.1f}' not in shown
    shown = reported(*other)
    assert shown.startswith('4 other runs are no part of the table\n')
    assert f'{records[4]["MAE"]:.1f}' in shown
    assert '+ BNM' not in shown
    assert reported('--first-seed', '1').startswith('3 other runs')
    # Of runs of other code there is no better report than of the last.
    assert not reported('--cfg-options', 'train_cfg.max_iters=7').startswith('4 other')


def test_a_table_takes_the_runs_that_all_schemes_have():
    runs = [
        record('b', 0, 1.0),
        record('a', 0, 2.0),
        record('a', 1, 3.0),
        record('b', 2, 4.0),
        record('a', 2, 5.0),
        record('c', 2, 6.0),
    ]

    def errors(*arguments):
        return [(r['scheme'], r['MAE']) for r in paired_runs(runs, *arguments)]

    assert errors(['a', 'b']) == [('a', 2), ('a', 5), ('b', 1), ('b', 4)]
    assert errors(['c', 'a', 'b', 'd']) == [('c', 6), ('a', 5), ('b', 4)]
    assert errors(['a'], [1, 2]) == [('a', 3), ('a', 5)]
    assert errors(['a', 'b'], [2], [0]) == [('a', 5), ('b', 4)]
    text = r"a fold and seed with runs of all of \['a', 'b'\], got none among 6 runs"
    with pytest.raises(ValueError, match=text):
        errors(['a', 'b'], None, [7])


def test_other_settings_leave_the_logs_of_earlier_runs(tmp_path, part_b):
    config = small('csrnet_small_shanghaitech_b', part_b)
    (long,) = run_schemes({'a': config}, [None], [0], tmp_path)
    config = copy.deepcopy(config)
    config.merge_from_dict({'train_cfg.max_iters': 2, 'optim_wrapper.optimizer.lr': 1})
    (short,) = run_schemes({'a': config}, [None], [0], tmp_path)
    steps = [FinishedRun(tmp_path, r).curve('loss')[0].tolist() for r in (long, short)]
    assert steps == [[1, 2, 3], [1, 2]]


def test_a_run_that_diverged_is_a_result(tmp_path, part_b, monkeypatch):
    diverged = record('b', None, math.nan) | {'counts': {'1': [10.0, math.inf]}}
    results = {'a': record('a', None, 5.0), 'b': diverged}
    calls = []

    def train_once(config, work_dir):
        calls.append(work_dir.name)
        return results[calls[-1][0]]

    monkeypatch.setattr(comparison, 'train_once', train_once)
    configs = {name: small('csrnet_small_shanghaitech_b', part_b) for name in 'ab'}
    for _ in range(2):
        records = run_schemes(configs, [None], [0], tmp_path)
        assert [call.rpartition('_')[0] for call in calls] == ['a_0', 'b_0']
    assert records[1]['MAE'] is None
    assert records[1]['counts'] == {'1': [10.0, None]}
    assert records == read_records(tmp_path / 'runs.jsonl')
    lines = scheme_table(records, 'a').splitlines()
    assert lines[3] == '| b | nan | 10.0 | 0.0 | 0.00 | +nan |  | 1 |'
    twice = [r | {'seed': seed} for seed in (0, 1) for r in records]
    lines = scheme_table(twice, 'a').splitlines()
    assert lines[3].startswith('| b | nan | 10.0 ± 0.0 | 0.0 ± 0.0 | 0.00 | +nan |  | ')


def test_a_training_that_diverges_does_not_end_the_comparison(tmp_path, part_b):
    configs = {name: small('csrnet_small_shanghaitech_b', part_b) for name in 'ab'}
    configs['a'].optim_wrapper.optimizer.lr = 1e30
    configs['a'].custom_hooks = [dict(type='CheckInvalidLossHook', interval=1)]
    first, second = run_schemes(configs, [None], [0], tmp_path)
    assert first['MAE'] is None
    assert math.isfinite(second['MAE'])


def test_each_run_gets_its_fold_and_seed_and_looks_at_no_held_out_image(
    tmp_path, ucf, trained
):
    config = small('csrnet_small_ucf_cc_50', ucf)
    run_schemes({'a': config}, [2], [5], tmp_path)
    (prepared,) = trained
    for loader, split in (('train', 'train'), ('test', 'test')):
        dataset = prepared[f'{loader}_dataloader']['dataset']
        assert (dataset['fold'], dataset['split']) == (2, split)
    assert prepared['randomness'] == dict(seed=5)
    assert prepared['val_dataloader'] is prepared['val_cfg'] is None


def record(scheme, fold, mae, rmse=10.0, bias=0.0):
    return dict(
        scheme=scheme,
        fold=fold,
        seed=0,
        MAE=mae,
        RMSE=rmse,
        bias=bias,
        counts={'1': [10.0, 3.0], '2': [30.0, 4.0]},
        train_mean=12.0,
    )


def test_table():
    runs = [record('plain', 0, 5.0), record('plain', 1, 7.0)]
    runs += [record('bnm', 0, 4.0), record('bnm', 1, 8.0, bias=-2.0)]
    lines = scheme_table(runs, 'plain', {'paper': (1.0, 2.0)}).splitlines()
    assert lines[0].startswith('| scheme | MAE | RMSE | bias | r | MAE - plain |')
    assert lines[2] == '| plain | 6.0 ± 1.4 | 10.0 ± 0.0 | 0.0 ± 0.0 | 1.00 |  |  | 2 |'
    assert lines[3].startswith(
        '| bnm | 6.0 ± 2.8 | 10.0 ± 0.0 | -1.0 ± 1.4 | 1.00 | +0.0 | [-1'
    )
    # |12 - 10| and |12 - 30|.
    assert lines[4].startswith('| *mean of the training counts* | 10.0 ± 0.0 | 12.8 ±')
    assert lines[4].endswith(' | 0.00 |  |  |  |')
    assert lines[5] == '| *paper* | 1.0 | 2.0 |  |  |  |  |  |'
    with pytest.raises(ValueError, match=r"baseline: expected one of .*, got 'other'"):
        scheme_table(runs, 'other')
    with pytest.raises(
        ValueError, match=r'runs: plain has folds and seeds .*, bnm has'
    ):
        scheme_table(runs[:-1], 'plain')


def test_tools_train_tabulate_and_draw(tmp_path, capsys):
    write_ucf_cc_50_layout(tmp_path / 'ucf', [i % 7 for i in range(50)], (40, 40))
    common = [
        str(CONFIGS / 'csrnet_small_ucf_cc_50.py'),
        '--out',
        str(tmp_path / 'out'),
        '--data-root',
        str(tmp_path / 'ucf'),
    ]
    cache = [
        f'{loader}_dataloader.dataset.pipeline.1.cache_dir={tmp_path / "maps"}'
        for loader in ('train', 'test')
    ]
    options = ['--cfg-options', *SMALL, *LOG, *cache]
    schemes = ['--schemes', 'CSRNet', 'CSRNet + A-BNM']
    count_crowds.main([*common, '--folds', '1', *schemes, *options])
    table = (tmp_path / 'out' / 'table.md').read_text()
    assert table in capsys.readouterr().out
    assert len(table.splitlines()) == 2 + 2 + 2
    assert '| *CSRNet as published* | 266.1 | 397.5 |' in table
    records = read_records(tmp_path / 'out' / 'runs.jsonl')
    assert [r['fold'] for r in records] == [1] * 2
    assert list(records[0]['counts']) == [str(n) for n in range(11, 21)]
    assert list((tmp_path / 'maps').glob('*.npy'))

    (tmp_path / 'out' / 'table.md').unlink()
    count_crowds.main([*common, '--report'])
    assert (tmp_path / 'out' / 'table.md').read_text() == table
    # An unfinished comparison, and a part of it.
    stray = records[0] | {'fold': 3}
    append_record(tmp_path / 'out' / 'runs.jsonl', stray)
    capsys.readouterr()
    count_crowds.main([*common, '--report'])
    assert table in capsys.readouterr().out
    count_crowds.main([*common, '--report', '--folds', '3', '--schemes', 'CSRNet'])
    shown = capsys.readouterr().out
    assert shown.startswith('2 other runs are no part of the table\n')
    assert '| CSRNet | ' in shown
    assert 'A-BNM' not in shown

    pictures = [tmp_path / 'new' / name for name in ('curves.png', 'grid.png')]
    arguments = ['--curves', str(pictures[0]), '--grid', str(pictures[1])]
    plot_schemes.main([str(tmp_path / 'out'), *arguments, '--rows', '2'])
    for path in pictures:
        image = imread(path)
        assert image.shape[1] == 12 * 80
        assert np.ptp(image[..., :3]) > 0.5
    # As many rows as there are held-out images, each of them once.
    shown = plot_schemes.images_of(tmp_path / 'out', records, ['CSRNet'], None, 99)
    assert sorted(image.name for image in shown) == [str(n) for n in range(11, 21)]
    plot_schemes.main([str(tmp_path / 'out'), *arguments[2:], '--images', '13'])
    assert imread(pictures[1]).shape[0] < image.shape[0]
    with pytest.raises(SystemExit, match=r"--images: expected some of .*, got '50'"):
        plot_schemes.main([str(tmp_path / 'out'), *arguments[2:], '--images', '50'])
    # The maps are of runs that all schemes have.
    append_record(tmp_path / 'out' / 'runs.jsonl', records[0] | {'seed': -1})
    both = ['--grid-schemes', 'CSRNet', 'CSRNet + A-BNM']
    plot_schemes.main([str(tmp_path / 'out'), *arguments[2:], *both, '--rows', '2'])
    assert 'several settings' not in capsys.readouterr().err
    stray = records[0] | {'seed': 7, 'config': 'other'}
    append_record(tmp_path / 'out' / 'runs.jsonl', stray)
    plot_schemes.main([str(tmp_path / 'out'), *arguments[2:], *both, '--rows', '2'])
    text = "the runs of 'CSRNet' are of several settings or versions of the code"
    assert text in capsys.readouterr().err
    lone = tmp_path / 'lone'
    lone.mkdir()
    append_record(lone / 'runs.jsonl', records[0])
    append_record(lone / 'runs.jsonl', records[1] | {'seed': 1})
    with pytest.raises(SystemExit, match='^--grid-schemes: expected a fold and seed'):
        plot_schemes.main([str(lone), *arguments[2:], *both])
    for gone in (tmp_path / 'out').glob('**/*.pth'):
        gone.unlink()
    with pytest.raises(SystemExit, match=r'\.pth can not be found'):
        plot_schemes.main([str(tmp_path / 'out'), *arguments])


def test_missing_data_end_the_tool_before_the_trainings(tmp_path, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = ['--out', str(tmp_path / 'out')]
    for name, folder in (
        ('csrnet_small_ucf_cc_50', 'data/UCF_CC_50'),
        ('csrnet_small_shanghaitech_b', 'data/ShanghaiTech/part_B_final'),
    ):
        with pytest.raises(
            SystemExit,
            match=r'^train_dataloader\.dataset\.data_root: there is no folder '
            rf"'{folder}'\. Put .*, or a link to it, at data/",
        ):
            count_crowds.main([str(CONFIGS / f'{name}.py'), *out])
        # A folder of something else.
        with pytest.raises(SystemExit, match='there is no .*jpg'):
            count_crowds.main(
                [str(CONFIGS / f'{name}.py'), *out, '--data-root', str(tmp_path)]
            )
    assert not trained


def test_a_picture_that_can_not_be_written_is_named_before_it_is_drawn(tmp_path):
    append_record(tmp_path / 'runs.jsonl', record('CSRNet', None, 5.0))
    for option in ('--curves', '--grid'):
        arguments = [str(tmp_path), '--grid-schemes', 'CSRNet', option]
        with pytest.raises(SystemExit, match=rf"^{option}: expected .* got 'a\.xyz'$"):
            plot_schemes.main([*arguments, 'a.xyz'])
        with pytest.raises(SystemExit, match=f"^{option}: '/proc/a' cannot be writ"):
            plot_schemes.main([*arguments, '/proc/a/b.png'])


@pytest.mark.parametrize(('iterations', 'interval'), [(1, 1), (3, 10)])
def test_curves_of_too_short_a_training_are_refused(
    part_b, tmp_path, iterations, interval
):
    config = small('csrnet_small_shanghaitech_b', part_b)
    config.train_cfg.max_iters = config.default_hooks.checkpoint.interval = iterations
    config.default_hooks.logger.interval = interval
    run_schemes({'CSRNet': config}, [None], [0], tmp_path)
    with pytest.raises(
        SystemExit,
        match="^--curves: expected an iteration at which all runs of 'CSRNet' logged "
        'the loss and its parts, got none; train longer, or log more often with '
        r'default_hooks\.logger\.interval$',
    ):
        plot_schemes.main([str(tmp_path), '--curves', str(tmp_path / 'a.png')])
    assert not (tmp_path / 'a.png').exists()


def test_bad_arguments_of_the_tools(tmp_path, capsys):
    plain = str(CONFIGS / 'csrnet_small_shanghaitech_b.py')
    for arguments, text in (
        ([plain, '--seeds', '0'], '--seeds: expected a number > 0, got 0'),
        (
            [plain, '--folds', '0', '9'],
            '--folds: expected some of [0, 1, 2, 3, 4], each once, got [0, 9]',
        ),
        ([plain, '--folds', '1', '1'], 'each once, got [1, 1]'),
        ([str(tmp_path / 'a.py')], f'there is no config {tmp_path / "a.py"}'),
    ):
        with pytest.raises(SystemExit):
            count_crowds.main(arguments)
        assert text in capsys.readouterr().err
    with pytest.raises(SystemExit):
        count_crowds.main([plain, '--data-root', str(tmp_path / 'no')])
    text = f"--data-root: there is no folder '{tmp_path / 'no'}'"
    assert text in capsys.readouterr().err
    with pytest.raises(SystemExit, match="^--out: '/proc/a' cannot be written to"):
        count_crowds.main([plain, '--out', '/proc/a'])
    with pytest.raises(SystemExit, match='--folds: the data set of .* has none'):
        count_crowds.main([plain, '--folds', '1', '--out', str(tmp_path)])
    with pytest.raises(SystemExit, match='--report: there are no runs in'):
        count_crowds.main([plain, '--report', '--out', str(tmp_path)])
    for arguments, text in (
        ([], 'name a picture to write: --curves or --grid'),
        (['--grid', 'a.png'], 'there are no runs in'),
        (['--grid', 'a.png', '--rows', '0'], '--rows: expected a number > 0, got 0'),
    ):
        with pytest.raises(SystemExit):
            plot_schemes.main([str(tmp_path), *arguments])
        assert text in capsys.readouterr().err
