import json

import compare_forecasts
import numpy as np
import plot_forecasts
import pytest
import test as test_tool
import torch
import train as train_tool
from matplotlib.image import imread
from mmengine.config import Config

from daal_mmdet.forecasting import comparison
from daal_mmdet.preflight import hold_folder
from daal_mmdet.run_records import read_records

SMALL = [
    'model.hidden_size=4',
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=1',
    *(f'{part}_dataloader.dataset.context=8' for part in ('train', 'val', 'test')),
]


@pytest.fixture
def configs(request):
    folder = request.config.rootpath / 'configs' / 'forecasting'
    return [
        str(folder / f'gru_sunspots_{name}.py') for name in ('mse', 'adaptive_dynamic')
    ]


def test_a_config_of_ones_own_trains_resumes_and_is_tested(request, tmp_path):
    base = request.config.rootpath / 'configs' / 'forecasting'
    wave = np.sin(np.arange(120)[:, None] / [1.7, 2.3]) * [3, 50] + [7, -20]
    np.savetxt(
        tmp_path / 'power.csv', wave, delimiter=',', header='load,wind', comments=''
    )
    # As docs/forecasting.md has it.
    (tmp_path / 'own.py').write_text(f"""
_base_ = '{base}/gru_sunspots_adaptive_dynamic.py'
series = dict(
    series='{tmp_path}/power.csv', columns=['load', 'wind'], context=8, horizon=3)
train_dataloader = dict(dataset=series)
val_dataloader = dict(dataset=series)
test_dataloader = dict(dataset=series)
model = dict(channels=2, horizon=3, loss=dict(channels=2))
train_cfg = dict(val_interval=2)
""")
    work = tmp_path / 'work'
    common = [str(tmp_path / 'own.py'), '--work-dir', str(work)]
    small = ['--cfg-options', 'default_hooks.checkpoint.interval=2']
    train_tool.main([*common, *small, 'train_cfg.max_iters=2'])
    assert Config.fromfile(work / 'own.py').model.loss.type == 'AdaptiveDynamicLoss'
    train_tool.main([*common, '--resume', *small, 'train_cfg.max_iters=4'])
    first, second = (
        torch.load(work / f'iter_{k}.pth', weights_only=False)['state_dict']
        for k in (2, 4)
    )
    assert first['loss_forecast.R'].shape == (2,)
    assert (first['loss_forecast.R'] != second['loss_forecast.R']).all()

    tested = tmp_path / 'tested'
    checkpoint = str(work / 'iter_4.pth')
    test_tool.main([common[0], checkpoint, '--work-dir', str(tested)])
    (path,) = tested.glob('*/*.json')
    metrics = json.loads(path.read_text())
    assert {'forecast/MSE', 'forecast/MAE', 'forecast/MASE'} <= set(metrics)


def test_compare_then_plot(configs, tmp_path, capsys):
    pytest.importorskip('statsmodels', reason='the forecasting extra is not installed')
    arguments = [
        '--configs',
        *configs,
        '--conditions',
        'clean',
        'outliers',
        '--seeds',
        '2',
        '--out',
        str(tmp_path),
        '--metric',
        'MSE',
        '--cfg-options',
        *SMALL,
    ]
    compare_forecasts.main(arguments)
    table = (tmp_path / 'test_table.md').read_text()
    assert table in capsys.readouterr().out
    assert len(table.splitlines()) == 2 + 4
    assert 'MSE - MSELoss' in table
    assert len(read_records(tmp_path / 'runs.jsonl')) == 8

    plot_forecasts.main([str(tmp_path), str(tmp_path / 'new' / 'a.png')])
    assert 'several settings' not in capsys.readouterr().err
    image = imread(tmp_path / 'new' / 'a.png')
    assert image.shape[1] == 990
    assert np.ptp(image[..., :3]) > 0.5

    # Runs of other settings leave those of these as they are.
    records = read_records(tmp_path / 'runs.jsonl')
    for name in ('runs.jsonl', 'test_table.md'):
        (tmp_path / name).rename(tmp_path / f'kept_{name}')
    compare_forecasts.main([*arguments, 'model.hidden_size=8'])
    for name in ('runs.jsonl', 'test_table.md'):
        (tmp_path / f'kept_{name}').replace(tmp_path / name)
    compare_forecasts.main(arguments)
    assert read_records(tmp_path / 'runs.jsonl') == records
    plot_forecasts.main([str(tmp_path), str(tmp_path / 'b.png')])
    np.testing.assert_array_equal(imread(tmp_path / 'b.png'), image)

    # A loss that has no run on such targets has no gain to show on them.
    records = read_records(tmp_path / 'runs.jsonl')
    kept = [
        r for r in records if (r['loss'], r['condition']) != ('MSELoss', 'outliers')
    ]
    assert len(kept) == 6
    (tmp_path / 'runs.jsonl').write_text(''.join(f'{json.dumps(r)}\n' for r in kept))
    plot_forecasts.main([str(tmp_path), str(tmp_path / 'c.png')])
    np.testing.assert_array_equal(imread(tmp_path / 'c.png'), image)

    gone = tmp_path / kept[0]['checkpoint']
    gone.unlink()
    with pytest.raises(SystemExit, match=rf'a configuration and {gone.name}$'):
        plot_forecasts.main([str(tmp_path), str(tmp_path / 'b.png')])


def test_a_training_that_diverges_ends_the_tool_with_a_line(
    configs, tmp_path, monkeypatch
):
    def diverge(config, work_dir):
        raise FloatingPointError(f'{work_dir}: never finite')

    monkeypatch.setattr(comparison, 'train_once', diverge)
    with pytest.raises(SystemExit, match='MSELoss_clean_0_test_.*: never finite'):
        compare_forecasts.main(['--configs', *configs, '--out', str(tmp_path)])


def test_a_run_that_was_done_anew_counts_once(tmp_path, capsys):
    record = dict(loss='MSELoss', condition='clean', seed=0, split='test')
    lines = [
        record | dict(config='old'),
        record | dict(config='old', seed=1),
        record | dict(config='old', split='val'),
        record | dict(config='new'),
    ]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (tmp_path / 'runs.jsonl').write_text(text)
    arguments = [str(tmp_path), 'a.png', '--gain-conditions']
    records = plot_forecasts.parse_args(arguments).records
    assert (
        "the runs of 'MSELoss' on clean targets are of several settings or versions of "
        'the code, which the picture mixes' in capsys.readouterr().err
    )
    assert {(r['seed'], r['config']) for r in records} == {(0, 'new'), (1, 'old')}
    assert len(records) == 2


def test_a_series_that_is_not_there_ends_the_tool_before_the_trainings(
    configs, tmp_path, monkeypatch
):
    trained = []
    monkeypatch.setattr(comparison, 'train_once', lambda *args: trained.append(args))
    out = tmp_path / 'out'
    for part in ('train', 'test'):
        key = f'{part}_dataloader.dataset.series'
        with pytest.raises(SystemExit, match=rf"^{key}: there is no file 'no\.csv'$"):
            compare_forecasts.main(
                ['--configs', *configs, '--out', str(out)]
                + ['--cfg-options', f'{key}=no.csv']
            )
    assert not trained
    assert not out.exists()


def test_a_figure_of_an_unknown_format_is_named(tmp_path):
    record = dict(loss='MSELoss', condition='clean', seed=0, split='test', config='a')
    (tmp_path / 'runs.jsonl').write_text(json.dumps(record) + '\n')
    for name in ('a.xyz', 'a'):
        with pytest.raises(
            SystemExit,
            match=rf"^output: expected a file that ends in .*'png'.*, got '{name}'$",
        ):
            plot_forecasts.main([str(tmp_path), name, '--gain-conditions'])


def test_bad_arguments_are_named(configs, tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare_forecasts.main(['--seeds', '0'])
    assert '--seeds: expected a number > 0, got 0' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='--configs: expected files of different nam'):
        compare_forecasts.main(['--configs', *configs, configs[0]])
    with pytest.raises(SystemExit, match=r"^--configs: there is no file 'nope\.py'$"):
        compare_forecasts.main(['--configs', configs[0], 'nope.py'])
    shorter = tmp_path / 'shorter.py'
    shorter.write_text(
        f"_base_ = '{configs[1]}'\ntest_dataloader = dict(dataset=dict(horizon=5))\n"
    )
    with pytest.raises(
        SystemExit,
        match=r'^--configs: test_dataloader\.dataset\.horizon: AdaptiveDynamicLoss has '
        '5 and MSELoss 11; only errors on the same forecasts can be compared$',
    ):
        compare_forecasts.main(['--configs', configs[0], str(shorter)])
    with pytest.raises(SystemExit, match="^--out: '/proc/a' cannot be written to"):
        compare_forecasts.main(['--configs', *configs, '--out', '/proc/a'])
    out = tmp_path / 'held'
    message = f'^--out: another process is at work in {str(out)!r}; wait for it'
    with hold_folder('--out', out), pytest.raises(SystemExit, match=message):
        compare_forecasts.main(['--configs', *configs, '--out', str(out)])
    with pytest.raises(SystemExit):
        plot_forecasts.main([str(tmp_path), 'a.png'])
    assert "has test runs of [], not 'clean'" in capsys.readouterr().err
