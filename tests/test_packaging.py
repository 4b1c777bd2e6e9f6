"""What installing the package promises: no PyTorch to build, nothing replaced."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import daal_mmdet

ROOT = Path(__file__).resolve().parents[1]
MM = {'mmcv', 'mmdet', 'mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine'}


@pytest.fixture(scope='module')
def metadata(tmp_path_factory):
    """Metadata that pip would see, made where torch cannot be imported."""
    folder = tmp_path_factory.mktemp('source')
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, folder)
    ignore = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / 'daal_mmdet', folder / 'daal_mmdet', ignore=ignore)
    code = (
        'import sys\n'
        'for name in ("torch", "mmcv", "mmdet", "mmengine"): sys.modules[name] = None\n'
        'from setuptools import build_meta\n'
        'build_meta.prepare_metadata_for_build_wheel("out")'
    )
    (folder / 'out').mkdir()
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = (folder / 'out').glob('*.dist-info/METADATA')
    return Parser().parsestr(path.read_text())


@pytest.mark.skipif(
    not (ROOT / '.git').exists() or shutil.which('git') is None,
    reason='there is no git, or this is no checkout',
)
def test_source_distribution_holds_all_that_is_tracked(tmp_path):
    done = subprocess.run(
        ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in done.stdout.split('\0') if (ROOT / name).is_file()}
    for name in tracked:
        path = tmp_path / 'source' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path)
    code = 'from setuptools import build_meta; print(build_meta.build_sdist("out"))'
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path / 'source',
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / 'source' / 'out').glob('*.tar.gz')
    with tarfile.open(path) as archive:
        files = {member.name.partition('/')[2]: member for member in archive}
    assert tracked - set(files) == {'.gitignore'}
    # The tests ask for it.
    assert files['.ci/run'].mode & 0o100


def requirements(metadata, extra=None):
    """Requirements of an extra, or those of a plain installation."""
    every = [Requirement(line) for line in metadata.get_all('Requires-Dist')]
    if extra is None:
        return [r for r in every if r.marker is None]
    return [r for r in every if r.marker and r.marker.evaluate({'extra': extra})]


def test_version_is_that_of_the_package(metadata):
    assert metadata['Name'] == 'daal_mmdet'
    assert metadata['Version'] == daal_mmdet.__version__
    assert metadata['Requires-Python'] == '>=3.10'


def test_plain_installation_replaces_nothing(metadata):
    required = requirements(metadata)
    assert required, 'the package needs numpy at least'
    # A requirement without bounds is met by whatever version is there.
    assert [str(r) for r in required if r.specifier] == []
    assert {r.name for r in required}.isdisjoint(MM | {'torch', 'torchvision'})


def test_extras(metadata):
    optional = {'compatibility', 'forecasting', 'lvis', 'triton'}
    extras = {'onedl', 'openmmlab', *optional, 'test', 'dev'}
    assert set(metadata.get_all('Provides-Extra')) == extras
    onedl = {r.name for r in requirements(metadata, 'onedl')}
    originals = {r.name: r.specifier for r in requirements(metadata, 'openmmlab')}
    assert onedl == {name for name in MM if name.startswith('onedl')}
    assert originals.keys() == MM - onedl
    # mmdet 3.3.0 does not import beside it.
    assert '2.1.0' in originals['mmcv']
    assert '2.2.0' not in originals['mmcv']
    # The first with DDQ, which the adapters import.
    assert '3.2.0' in originals['mmdet']
    assert '3.1.0' not in originals['mmdet']
    test = {str(r) for r in requirements(metadata, 'test')}
    dev = {str(r) for r in requirements(metadata, 'dev')}
    strip = re.compile(r';.*').sub
    assert {strip('', r) for r in test} < {strip('', r) for r in dev}


def test_setup_pins_satisfy_the_onedl_extra(metadata):
    from environment import decisions

    pinned = dict(pin.split('==') for pin in decisions.STACK)
    pinned['onedl-mmcv'] = decisions.MMCV
    wanted = {r.name: r.specifier for r in requirements(metadata, 'onedl')}
    assert set(pinned) == set(wanted)
    for name, version in pinned.items():
        assert wanted[name].contains(version), name


def imported_at_once(path):
    """Top-level names of the modules that importing a file imports."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split('.')[0]


def test_imports_of_the_package_are_required_or_of_the_stack(metadata):
    files = list((ROOT / 'daal_mmdet').rglob('*.py'))
    outside = {name for path in files for name in imported_at_once(path)}
    outside -= set(sys.stdlib_module_names) | {'daal_mmdet'}
    brought_by_the_stack = {'torch', 'mmcv', 'mmdet', 'mmengine', 'cv2'}
    assert {'torch', 'mmdet'} <= outside, 'the imports were not found'
    required = {r.name for r in requirements(metadata)}
    distributions = {'PIL': 'pillow'}  # where it is not the name of the import
    needed = {distributions.get(name, name) for name in outside}
    assert needed - brought_by_the_stack <= required


def test_citation_names_version_and_paper():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == daal_mmdet.__version__
    assert citation['preferred-citation']['doi'] == '10.1049/ipr2.12661'
    assert citation['license'] == 'Apache-2.0'


def test_changelog_has_this_version():
    assert f'## {daal_mmdet.__version__}' in (ROOT / 'CHANGELOG.md').read_text()


def make(*arguments):
    """What make would run, as lines."""
    done = subprocess.run(
        ['make', '--no-print-directory', '-n', *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={'PATH': os.environ['PATH']},  # not the variables of an outer make
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
@pytest.mark.parametrize(
    ('target', 'last'),
    [
        (['demo'], '.venv/bin/python tools/demo.py'),
        (['demo', 'DATA=my data'], ".venv/bin/python tools/demo.py --data 'my data'"),
        (['test'], '.venv/bin/python -m pytest'),
        (['test', 'ARGS=-k kalman'], '.venv/bin/python -m pytest -k kalman'),
        (['setup'], "'python3' tools/setup_env.py"),
        (
            ['setup', 'TORCH=2.12.0', 'REUSE_TORCH=0', 'PYTHON=python3.12'],
            "'python3.12' tools/setup_env.py --torch '2.12.0' --no-reuse-torch",
        ),
        (['setup', 'REBUILD_MMCV=1'], "'python3' tools/setup_env.py --rebuild-mmcv"),
    ],
)
def test_make_runs(target, last):
    lines = make(*target)
    assert ' '.join(lines[-1].split()) == last
    assert any('tools/setup_env.py' in line for line in lines)


@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
def test_make_names_a_missing_python():
    done = subprocess.run(
        ['make', 'setup', 'PYTHON=no-such-python'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'There is no no-such-python. Name a Python >= 3.10' in done.stdout


def test_ci_runs_the_test_command_of_the_readme():
    script = ROOT / '.ci' / 'run'
    assert os.access(script, os.X_OK)
    commands = script.read_text().splitlines()
    assert 'make lint' in commands
    assert 'make test' in commands
    assert 'make test' in (ROOT / 'README.md').read_text()


@pytest.mark.parametrize(
    ('version', 'message'),
    [
        (
            None,
            r'extends MMDetection, which does not import here \(.*"daal_mmdet\[onedl',
        ),
        ('3.1.0', 'needs MMDetection 3.2 or newer, and here is 3.1.0'),
    ],
)
def test_an_mmdet_that_does_not_do_is_named(tmp_path, version, message):
    """The import ends there, before it needs anything else of mmdet."""
    text = 'import nowhere' if version is None else f'__version__ = {version!r}'
    (tmp_path / 'mmdet.py').write_text(text)
    path = os.pathsep.join([str(tmp_path), str(Path(daal_mmdet.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, '-c', 'import daal_mmdet'],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.search(f'ImportError: daal_mmdet {message}', done.stderr)
