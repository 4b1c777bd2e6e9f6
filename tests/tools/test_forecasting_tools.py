import compare_forecasts
import numpy as np
import plot_forecasts
import pytest
from matplotlib.image import imread

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


def test_compare_then_plot(configs, tmp_path, capsys):
    pytest.importorskip('statsmodels', reason='the forecasting extra is not installed')
    arguments = [
        '--configs',
        *configs,
        '--conditions',
        'clean',
        'outliers',
        '--seeds',
        '1',
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
    assert len(read_records(tmp_path / 'runs.jsonl')) == 4

    plot_forecasts.main([str(tmp_path), str(tmp_path / 'new' / 'a.png')])
    image = imread(tmp_path / 'new' / 'a.png')
    assert image.shape[1] == 990
    assert np.ptp(image[..., :3]) > 0.5


def test_bad_arguments_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare_forecasts.main(['--seeds', '0'])
    assert '--seeds: expected a number > 0, got 0' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        plot_forecasts.main([str(tmp_path), 'a.png'])
    assert "has test runs of [], not 'clean'" in capsys.readouterr().err
