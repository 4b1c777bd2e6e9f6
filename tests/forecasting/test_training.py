"""From the shipped configs through MMEngine's runner to metrics and a table."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from daal_mmdet.code_digest import code_digest
from daal_mmdet.forecasting import comparison
from daal_mmdet.forecasting.comparison import run_comparison, train_once
from daal_mmdet.forecasting.finished_run import FinishedRun
from daal_mmdet.run_records import read_records

CONFIGS = Path(__file__).parents[2] / 'configs' / 'forecasting'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))


@pytest.fixture
def series(tmp_path):
    """A noisy wave of 120 steps in a CSV file."""
    t = np.arange(120)
    wave = 10 * np.sin(2 * np.pi * t / 11) + np.random.default_rng(0).normal(size=120)
    path = tmp_path / 'series.csv'
    path.write_text(
        'time,value\n' + ''.join(f'{a},{b:.4f}\n' for a, b in enumerate(wave))
    )
    return path


@pytest.fixture
def load(series):
    """Load a shipped config, made small, on the wave."""

    def make(name):
        config = Config.fromfile(CONFIGS / f'{name}.py')
        for part in ('train', 'val', 'test'):
            config[f'{part}_dataloader'].dataset.update(
                series=str(series), columns=['value'], context=8, horizon=3
            )
        config.model.update(hidden_size=8, horizon=3)
        config.train_cfg.update(max_iters=6, val_interval=3)
        config.default_hooks.checkpoint.interval = 3
        config.log_level = 'WARNING'
        return config

    return make


@pytest.mark.parametrize('name', NAMES)
def test_shipped_configs_train_and_evaluate(name, load, tmp_path):
    config = load(name)
    metrics, checkpoint = train_once(config, tmp_path / name)
    assert set(metrics) == {'MSE', 'MAE', 'MASE'}
    assert all(np.isfinite(value) for value in metrics.values())
    assert checkpoint.parent == tmp_path / name
    early, late = (
        torch.load(tmp_path / name / f'iter_{k}.pth', weights_only=False)['state_dict']
        for k in (3, 6)
    )
    assert not torch.equal(early['gru.weight_hh_l0'], late['gru.weight_hh_l0'])
    assert config.get('work_dir') is None


def test_a_series_of_two_columns_trains_as_the_docs_say(series, tmp_path):
    lines = series.read_text().splitlines()
    rows = [f'{line},{i % 7}' for i, line in enumerate(lines[1:])]
    series.write_text('\n'.join(['time,value,other', *rows]))
    config = Config.fromfile(CONFIGS / 'gru_sunspots_adaptive_dynamic.py')
    options = dict(series=str(series), columns=['value', 'other'], context=8, horizon=3)
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].dataset.update(options)
    config.model.update(channels=2, horizon=3)
    config.model.loss.update(channels=2)
    config.train_cfg.update(max_iters=2, val_interval=2)
    metrics, checkpoint = train_once(config, tmp_path / 'two')
    assert np.isfinite(metrics['MASE'])
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    assert weights['loss_forecast.R'].shape == (2,)


def test_twins_differ_in_the_loss_alone():
    plain = {}
    for name in NAMES:
        config = Config.fromfile(CONFIGS / f'{name}.py').to_dict()
        if name.endswith('_noisy'):
            assert config['train_dataloader']['dataset'].pop('target_noise') is not None
        config['model'].pop('loss')
        plain[name] = config
    assert all(config == plain['gru_sunspots_mse'] for config in plain.values())


def test_configs_use_the_real_series():
    pytest.importorskip('statsmodels', reason='the forecasting extra is not installed')
    config = Config.fromfile(CONFIGS / 'gru_sunspots_mse.py')
    from mmdet.registry import DATASETS

    sizes = [
        len(DATASETS.build(config[f'{part}_dataloader'].dataset))
        for part in ('train', 'val', 'test')
    ]
    # Of 309 years: 185, 62 and 62; 33 in, 11 out.
    assert sizes == [185 - 33, 62 - 10, 62 - 10]


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(load, tmp_path):
    def train(folder, max_iters, resume=False):
        config = load('gru_sunspots_adaptive_dynamic')
        config.work_dir = str(tmp_path / folder)
        config.experiment_name = f'{folder}_{max_iters}'
        config.train_cfg.max_iters = max_iters
        config.resume = resume
        runner = Runner.from_cfg(config)
        runner.train()
        return runner.model.state_dict()

    train('cut', 3)
    resumed, whole = train('cut', 6, resume=True), train('whole', 6)
    assert resumed['loss_forecast.R'] != 0.1
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.fixture
def trained(monkeypatch):
    """Replace training by a number that the config determines; list the configs."""
    configs = []

    def train_once(config, work_dir):
        configs.append(config.to_dict())
        number = zlib.crc32(json.dumps(configs[-1], sort_keys=True).encode())
        # Absolute, as a runner's checkpoints are.
        return dict(MSE=float(number)), (work_dir / 'best.pth').absolute()

    monkeypatch.setattr(comparison, 'train_once', train_once)
    return configs


def test_a_comparison_resumes_after_a_kill(load, tmp_path, trained):
    configs = {name: load(f'gru_sunspots_{name}') for name in ('mse', 'kalman')}
    before = {name: config.to_dict() for name, config in configs.items()}
    arguments = (configs, ['outliers', 'clean'], [0, 1], tmp_path / 'out')
    seen = []
    records = run_comparison(*arguments, on_done=seen.append)
    assert seen == records
    assert len({(r['loss'], r['condition'], r['seed']) for r in records}) == 8
    assert len({r['MSE'] for r in records}) == len(trained) == 8
    path = tmp_path / 'out' / 'runs.jsonl'
    assert read_records(path) == records

    # What is done is not done again, but a line that was cut short is.
    assert run_comparison(*arguments) == records
    assert len(trained) == 8
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(lines[:-1]) + '\n' + lines[-1][:20])
    assert run_comparison(*arguments) == records
    assert read_records(path) == records
    assert len(trained) == 9

    # Another configuration is another run.
    assert {name: config.to_dict() for name, config in configs.items()} == before
    configs['mse'].model.hidden_size = 4
    changed = run_comparison(*arguments)
    assert len(trained) == 9 + 4
    for old, new in zip(records, changed, strict=True):
        assert (old['MSE'] == new['MSE']) == (old['loss'] == 'kalman')


def test_runs_of_other_code_are_done_again(load, tmp_path, trained, monkeypatch):
    arguments = ({'kalman': load('gru_sunspots_kalman')}, ['clean'], [0], tmp_path)
    (old,) = run_comparison(*arguments)
    for module in ('losses.kalman_loss', 'forecasting.gru_forecaster'):

        def digest(name, changed=f'daal_mmdet.{module}'):
            return 'changed' if name == changed else code_digest(name)

        with monkeypatch.context() as patch:
            patch.setattr('daal_mmdet.config_hash.code_digest', digest)
            (new,) = run_comparison(*arguments)
            assert new['config'] != old['config']
            assert run_comparison(*arguments) == [new]
    assert len(trained) == 3
    assert run_comparison(*arguments) == [old]


def test_runs_with_other_validations_are_done_again(load, tmp_path, trained):
    config = load('gru_sunspots_mse')
    arguments = ({'mse': config}, ['clean'], [0], tmp_path)
    run_comparison(*arguments)
    config.train_cfg.val_interval = 2
    run_comparison(*arguments)
    assert [c['train_cfg']['val_interval'] for c in trained] == [3, 2]


def test_a_relative_folder_works(load, tmp_path, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = run_comparison(
        {'a': load('gru_sunspots_mse')}, ['clean'], [0], Path('out')
    )
    name = f'a_clean_0_test_{record[0]["config"][:8]}'
    assert record[0]['checkpoint'] == f'runs/{name}/best.pth'


def test_each_run_gets_its_seed_noise_and_part(load, tmp_path, trained):
    config = load('gru_sunspots_mse')
    run_comparison({'a': config}, ['noisy', 'clean', 'outliers'], [5], tmp_path, 'val')
    noises = [c['train_dataloader']['dataset'].get('target_noise') for c in trained]
    assert noises == [
        dict(std=0.5, seed=5),
        None,
        dict(std=3.0, fraction=0.1, seed=5),
    ]
    # Also where a config has its own.
    config.train_dataloader.dataset.target_noise = dict(std=9.0)
    run_comparison({'b': config}, ['clean'], [5], tmp_path, 'val')
    assert 'target_noise' not in trained[-1]['train_dataloader']['dataset']
    for prepared in trained:
        assert prepared['randomness'] == dict(seed=5)
        assert prepared['test_dataloader']['dataset']['split'] == 'val'
        assert prepared['val_dataloader']['dataset']['split'] == 'val'
        assert prepared['train_dataloader']['dataset']['split'] == 'train'


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(split='dev'), "split: expected one of .*, got 'dev'"),
        (dict(conditions=['dirty']), "conditions: expected one of .*, got 'dirty'"),
    ],
)
def test_bad_arguments_are_named(change, text, tmp_path):
    arguments = dict(configs={}, conditions=['clean'], seeds=[0], folder=tmp_path)
    with pytest.raises(ValueError, match=text):
        run_comparison(**{**arguments, **change})


def test_a_training_that_diverges_is_named_and_others_are_kept(load, tmp_path):
    configs = {name: load(f'gru_sunspots_{name}') for name in ('mae', 'mse')}
    configs['mse'].optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e38))
    text = (
        rf'^{re.escape(str(tmp_path))}/runs/mse_clean_0_test_\w{{8}}: the error on the '
    )
    with pytest.raises(FloatingPointError, match=f'{text}validation part was never fi'):
        run_comparison(configs, ['clean'], [0], tmp_path)
    assert [r['loss'] for r in read_records(tmp_path / 'runs.jsonl')] == ['mae']


def test_a_finished_run_forecasts_as_its_evaluation_did(load, tmp_path):
    config = load('gru_sunspots_adaptive_dynamic')
    (record,) = run_comparison({'ad': config}, ['noisy'], [3], tmp_path)
    assert read_records(tmp_path / 'runs.jsonl') == [record]
    assert not Path(record['checkpoint']).is_absolute()
    run = FinishedRun(tmp_path, record)
    first, values = run.forecasts()
    assert first.tolist() == [96, 99, 102, 105, 108, 111, 114, 117]
    assert values.shape == (8, 3, 1)
    series = run.test.values * run.test.metainfo['std'] + run.test.metainfo['mean']
    samples = [run.test[i]['data_samples'] for i in range(len(run.test))]
    inputs = torch.stack([run.test[i]['inputs'] for i in range(len(run.test))])
    with torch.no_grad():
        run.model(inputs, samples, mode='predict')
    meta = run.test.metainfo
    errors = [
        s.forecast.double().numpy() * meta['std']
        + meta['mean']
        - series[s.first_target : s.first_target + 3]
        for s in samples
    ]
    np.testing.assert_allclose(np.square(errors).mean(), record['MSE'], rtol=1e-4)
    np.testing.assert_allclose(
        values[1, :, 0], errors[3][:, 0] + series[99:102, 0], rtol=1e-4
    )
    assert run.targets().shape == run.gains().shape == (72, 1)
    assert not np.allclose(run.targets(), series[:72], atol=0.1)
    assert 0 < run.gains().min() < run.gains().max() < 1


def test_gains_of_the_other_losses(load, tmp_path):
    configs = {n: load(f'gru_sunspots_{n}') for n in ('mse', 'kalman')}
    mse, kalman = run_comparison(configs, ['clean'], [0], tmp_path)
    assert FinishedRun(tmp_path, mse).gains() is None
    gains = FinishedRun(tmp_path, kalman).gains()
    assert gains.shape == (72, 1)
    # Q = R: the settled gain solves K^2 + K = 1.
    np.testing.assert_allclose(gains, (np.sqrt(5) - 1) / 2, rtol=1e-3)
    (tmp_path / kalman['checkpoint']).unlink()
    with pytest.raises(FileNotFoundError, match='expected a configuration and best_'):
        FinishedRun(tmp_path, kalman)
