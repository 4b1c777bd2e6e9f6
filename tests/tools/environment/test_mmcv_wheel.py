"""Finding a wheel with ops and what compiling needs; no network, no pip."""

import zipfile

import pytest

from environment import mmcv_wheel, processes
from environment.layout import Layout

CPU = {'version': '2.13.0+cpu', 'cuda': None, 'nvcc': None, 'gpu': False}


@pytest.mark.parametrize(
    ('cores', 'memory', 'wanted', 'jobs'),
    [
        (2, 20.0, None, 2),
        (64, 7.9, None, 7),
        (4, 0.4, None, 1),
        (4, None, None, 4),
        (4, 0.4, '3', 3),
    ],
)
def test_compile_jobs(cores, memory, wanted, jobs):
    assert mmcv_wheel.compile_jobs(cores, memory, wanted) == jobs


def test_max_jobs_that_is_no_number_is_named():
    with pytest.raises(processes.SetupError, match="MAX_JOBS is 'all'; it has to be"):
        mmcv_wheel.compile_jobs(4, 8.0, 'all')


def make_wheel(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        for name in names:
            archive.writestr(name, '')
    return path


OPS = 'mmcv/_ext.cpython-311-x86_64-linux-gnu.so'


def test_has_ops(tmp_path):
    assert mmcv_wheel.has_ops(make_wheel(tmp_path / 'a.whl', OPS))
    assert not mmcv_wheel.has_ops(make_wheel(tmp_path / 'b.whl', 'mmcv/ops/nms.py'))
    (tmp_path / 'c.whl').write_text('half a download')
    assert not mmcv_wheel.has_ops(tmp_path / 'c.whl')
    assert not mmcv_wheel.has_ops(tmp_path / 'none.whl')


def test_candidates_are_wheels_with_ops_for_this_python_and_torch(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    layout, python = Layout(tmp_path), {'python': [3, 11, 7]}
    ours = mmcv_wheel.cache_folder(layout, CPU)
    other = mmcv_wheel.cache_folder(layout, {**CPU, 'version': '2.12.0+cpu'})
    name = 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
    good = make_wheel(ours / name, OPS)
    make_wheel(ours / name.replace('cp311', 'cp312'), OPS)
    make_wheel(other / name, OPS)
    cached = [
        make_wheel(tmp_path / 'pip' / 'a' / name, OPS),
        make_wheel(tmp_path / 'pip' / 'b' / name, 'mmcv/__init__.py'),
        make_wheel(tmp_path / 'pip' / 'c' / name.replace('2.3.6', '2.3.5'), OPS),
    ]
    # A stand-in for `pip cache list`.
    layout.python.parent.mkdir(parents=True)
    layout.python.write_text('#!/bin/sh\n' + ''.join(f'echo {c}\n' for c in cached))
    layout.python.chmod(0o755)

    assert mmcv_wheel.candidates(layout, python, CPU) == [good, cached[0]]
    assert f'mmcv without ops; not used: {cached[1]}' in capsys.readouterr().out
    # With a GPU, wheels of unknown kind are left alone.
    gpu = {'version': '2.13.0+cu130', 'cuda': '13.0', 'nvcc': '13.0', 'gpu': True}
    assert mmcv_wheel.candidates(layout, python, gpu) == []


def test_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler -m64')
    with pytest.raises(
        processes.SetupError, match=r"no C\+\+ compiler 'no-such-compiler -m64'"
    ):
        mmcv_wheel.require_compiler('/usr/include')


def fake_compiler(tmp_path, monkeypatch, message):
    path = tmp_path / 'c++'
    path.write_text(f'#!/bin/sh\necho "{message}" >&2\nexit 1\n')
    path.chmod(0o755)
    monkeypatch.setenv('CXX', str(path))


def test_missing_headers_are_named(tmp_path, monkeypatch):
    fake_compiler(tmp_path, monkeypatch, 'fatal error: Python.h: No such file')
    with pytest.raises(
        processes.SetupError, match='missing from /inc(.|\n)*python3-dev'
    ):
        mmcv_wheel.require_compiler('/inc')


def test_old_compiler_is_named(tmp_path, monkeypatch):
    fake_compiler(tmp_path, monkeypatch, "unrecognized option '-std=c++17'")
    with pytest.raises(
        processes.SetupError, match=r'cannot compile C\+\+17 \(GCC >= 9'
    ):
        mmcv_wheel.require_compiler('/inc')


def test_wheel_is_used_from_its_place_if_the_cache_cannot_be_written(tmp_path, capsys):
    wheel = make_wheel(tmp_path / 'build' / 'x.whl', OPS)
    kept = mmcv_wheel._keep(wheel, tmp_path / 'cache')
    assert kept == tmp_path / 'cache' / 'x.whl'
    assert [p.name for p in kept.parent.iterdir()] == ['x.whl']
    assert kept.read_bytes() == wheel.read_bytes()
    (tmp_path / 'file').write_text('')
    assert mmcv_wheel._keep(wheel, tmp_path / 'file' / 'cache') == wheel
    assert 'could not be kept' in capsys.readouterr().out
