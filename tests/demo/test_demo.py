from pathlib import Path

import demo
import make_long_tail as make_long_tail_tool
import pytest
from PIL import Image

from daal_mmdet.datasets import LongTailScenes, make_long_tail
from daal_mmdet.demo import DemoFiles, Schedule, run_demo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    args = LongTailScenes(
        num_train=16, num_val=8, num_test=0, image_size=(96, 64), min_instances=1
    )
    return make_long_tail(
        tmp_path_factory.mktemp('data') / 'scenes', args, progress=False
    )


def test_both_losses_are_trained_compared_and_used_again(
    data, tmp_path, monkeypatch, capfd
):
    # The training processes must find the package where the tests find it.
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    files = DemoFiles(
        ROOT / 'configs' / 'long_tail',
        ROOT / 'tools' / 'train.py',
        tmp_path / 'unused',
        tmp_path / 'demo',
    )
    figure = run_demo(files, data=data, schedule=Schedule(10, 64))
    first = capfd.readouterr()
    assert figure == tmp_path / 'demo' / 'comparison.png'
    with Image.open(figure) as image:
        assert image.width == 1540
    table = (tmp_path / 'demo' / 'comparison.txt').read_text()
    assert table in first.out
    assert [line.split('|')[1].strip() for line in table.splitlines()[3:-1]] == [
        'few classes',
        'medium classes',
        'many classes',
        'all classes (mAP)',
    ]
    assert 'FocalLoss: training, 10 iterations' in first.out
    assert 'DAALLoss: training, 10 iterations' in first.out
    assert '100%' in first.err
    logs = [
        (tmp_path / 'demo' / name / 'console.log').read_text()
        for name in ('focal', 'daal')
    ]
    assert "type='FocalLoss'" in logs[0]
    assert "type='DAALLoss'" in logs[1]
    assert not (tmp_path / 'unused').exists()

    checkpoint = tmp_path / 'demo' / 'focal' / 'iter_10.pth'
    written = checkpoint.stat().st_mtime_ns
    run_demo(files, data=data, schedule=Schedule(10, 64))
    second = capfd.readouterr()
    assert 'FocalLoss: using the finished run' in second.out
    assert 'DAALLoss: using the finished run' in second.out
    assert table in second.out
    assert checkpoint.stat().st_mtime_ns == written


def test_the_command_reports_bad_input_in_one_line(tmp_path, capsys):
    (tmp_path / 'annotations').mkdir()
    out = tmp_path / 'out'
    assert demo.main(['--data', str(tmp_path), '--work-dir', str(out)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: no train annotations: looked for')
    assert not out.exists()


def test_the_command_reports_bad_options_in_one_line(capsys):
    assert demo.main(['--iters', '2']) == 1
    assert 'error: max_iters must be at least 10, got 2' in capsys.readouterr().err


def test_the_generator_command(tmp_path, capsys):
    command = [
        str(tmp_path / 'scenes'),
        '--num-train',
        '6',
        '--num-val',
        '6',
        '--num-test',
        '0',
        '--image-size',
        '96',
        '64',
        '--min-instances',
        '1',
    ]
    assert make_long_tail_tool.main(command) == 0
    assert len(list((tmp_path / 'scenes').rglob('*.jpg'))) == 12
    with Image.open(tmp_path / 'scenes' / 'val' / '000000.jpg') as image:
        assert image.size == (96, 64)
    assert make_long_tail_tool.main([*command, '--seed', '1']) == 1
    assert 'seed=0 there, seed=1 asked' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='2'):
        make_long_tail_tool.main([*command, '--exponent', '-2'])
    assert 'exponent must be at least 0, got -2.0' in capsys.readouterr().err
