"""Find or compile a wheel of onedl-mmcv that holds the compiled ops."""

import os
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .decisions import MMCV, can_compile_cuda
from .layout import Layout
from .processes import SetupError, child_env, run, say
from .progress import compile_line, estimate

_CXX_TEST = """
#include <Python.h>
#include <optional>
int main() { return std::optional<int>(0).value(); }
"""
_JOB_MEMORY = 1.0  # GiB; the largest file took 0.7


def has_ops(wheel: Path) -> bool:
    """Tell whether a wheel holds ``mmcv._ext``; false for what is no wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return any(name.startswith('mmcv/_ext') for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def cache_folder(layout: Layout, facts: Mapping[str, Any]) -> Path:
    """Return the folder of the wheels compiled against this PyTorch, for CUDA or CPU.

    pip's own cache knows neither, so its wheels may not load here.
    """
    ops = f'cu{facts["cuda"]}' if can_compile_cuda(facts) else 'cpu'
    return layout.wheel_cache / f'torch-{facts["version"]}-ops-{ops}'


def python_tag(found: Mapping[str, Any]) -> str:
    """Return the wheel tag of an interpreter, such as ``cp311``."""
    return 'cp{}{}'.format(*found['python'][:2])


def pip_cached(layout: Layout, found: Mapping[str, Any]) -> list[Path]:
    """Return pip's cached mmcv wheels for this interpreter that hold ops."""
    listing = subprocess.run(
        [layout.python, '-m', 'pip', 'cache', 'list', '--format', 'abspath']
        + ['onedl_mmcv'],
        capture_output=True,
        text=True,
        env=child_env(),
    )
    pattern = re.compile(rf'onedl_mmcv-{re.escape(MMCV)}-{python_tag(found)}-')
    wheels = [Path(line) for line in listing.stdout.splitlines()]
    fitting = [wheel for wheel in wheels if pattern.match(wheel.name)]
    for wheel in fitting:
        if not has_ops(wheel):
            say(f'    pip has cached an mmcv without ops; not used: {wheel}')
    return [wheel for wheel in fitting if has_ops(wheel)]


def candidates(
    layout: Layout, found: Mapping[str, Any], facts: Mapping[str, Any]
) -> list[Path]:
    """Return wheels made earlier that may serve, the surest first."""
    pattern = f'onedl_mmcv-{MMCV}-{python_tag(found)}-*.whl'
    wheels = sorted(cache_folder(layout, facts).glob(pattern))
    if not can_compile_cuda(facts):  # pip's may have been compiled for the CPU
        wheels += pip_cached(layout, found)
    return [wheel for wheel in wheels if has_ops(wheel)]


def any_cached(layout: Layout, found: Mapping[str, Any]) -> bool:
    """Tell whether a wheel for some PyTorch is there, so a compiler may be spared."""
    ours = layout.wheel_cache.glob(f'*/onedl_mmcv-{MMCV}-{python_tag(found)}-*.whl')
    return any(ours) or bool(pip_cached(layout, found))


def require_compiler(include: str) -> None:
    """Check that a C++17 compiler and Python's headers are there.

    Raises:
        SetupError: One is missing; the message names the package to install.
    """
    compiler = os.environ.get('CXX', 'c++')
    flags = ['-std=c++17', '-fsyntax-only', '-I', include, '-x', 'c++', '-']
    try:
        done = subprocess.run(
            shlex.split(compiler) + flags,
            input=_CXX_TEST,
            capture_output=True,
            text=True,
        )
    except OSError:
        raise SetupError(
            f'mmcv has to be compiled, and there is no C++ compiler {compiler!r}. '
            'Install one, then give the same command again:\n'
            '  Debian, Ubuntu:  sudo apt-get install build-essential\n'
            '  Fedora, RHEL:    sudo dnf install gcc-c++ make\n'
            '  conda:           conda install -c conda-forge cxx-compiler\n'
            '  macOS:           xcode-select --install'
        ) from None
    if 'Python.h' in done.stderr:
        raise SetupError(
            f"mmcv has to be compiled, and Python's headers are missing from "
            f'{include}. Install them, then give the same command again:\n'
            '  Debian, Ubuntu:  sudo apt-get install python3-dev\n'
            '  Fedora, RHEL:    sudo dnf install python3-devel'
        )
    if done.returncode:
        raise SetupError(
            f'The compiler {compiler!r} cannot compile C++17 '
            f'(GCC >= 9 or Clang >= 7 can):\n{done.stderr.strip()[-600:]}'
        )


def compile_jobs(cores: int, memory: float | None, wanted: str | None) -> int:
    """Return how many files to compile at once.

    Args:
        cores: Cores that this process may use.
        memory: Free GiB, None if not known; each compiler takes up to one.
        wanted: ``MAX_JOBS`` of the user, which wins.

    Raises:
        SetupError: ``MAX_JOBS`` is no number.
    """
    if wanted:
        try:
            return max(1, int(wanted))
        except ValueError:
            raise SetupError(
                f'MAX_JOBS is {wanted!r}; it has to be a number of compilers, such as 4'
            ) from None
    if memory is None:
        return max(1, cores)
    return max(1, min(cores, int(memory / _JOB_MEMORY)))


def _free_memory() -> float | None:
    try:
        text = Path('/proc/meminfo').read_text()
    except OSError:
        return None
    found = re.search(r'MemAvailable:\s+(\d+) kB', text)
    return int(found.group(1)) / 2**20 if found else None


def _cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fetch_source(layout: Layout, build: Path) -> Path:
    """Download and unpack the source; the folder appears only when it is whole."""
    source = build / f'onedl_mmcv-{MMCV}'
    if source.is_dir():
        return source
    download = build / 'download'
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    pip = [layout.python, '-m', 'pip', 'download', '--no-deps', '--no-build-isolation']
    pip += ['--no-binary', 'onedl-mmcv', '-d', download, f'onedl-mmcv=={MMCV}']
    run(pip, layout.mmcv_log, layout.root)
    archive = next(download.glob('*.tar.gz'))
    with tarfile.open(archive) as tar:
        # Older patch releases of Python 3.10 and 3.11 have no filters.
        safe = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
        tar.extractall(download, **safe)
    (download / source.name).rename(source)
    return source


def compile_wheel(
    layout: Layout, found: Mapping[str, Any], facts: Mapping[str, Any]
) -> Path:
    """Compile mmcv's ops against the environment's PyTorch; keep the wheel.

    The source lies in a folder of its own, so an interrupted compilation goes on with
    the files that are left, which pip's own temporary folders would not allow.

    Raises:
        SetupError: A compiler is missing, or the compilation failed.
    """
    require_compiler(found['include'])
    jobs = compile_jobs(_cores(), _free_memory(), os.environ.get('MAX_JOBS'))
    env = {'CFLAGS': '-g0 -O2', 'MAX_JOBS': str(jobs)}
    cuda = can_compile_cuda(facts)
    if facts['gpu'] and not cuda:
        # mmcv asks torch.cuda.is_available(), and then fails without nvcc.
        env['CUDA_VISIBLE_DEVICES'] = ''
        say(
            f'    NOTE: only the CPU ops can be compiled: PyTorch is made for CUDA '
            f'{facts["cuda"]} and nvcc is {facts["nvcc"] or "missing"}.'
        )
    kind = 'CUDA ops: several times longer than CPU ops' if cuda else 'CPU ops'
    seconds = estimate(jobs)
    say(
        f'    {kind}, {jobs} at a time, about {max(1, round(seconds / 60))} min on an '
        f'idle machine; log: {layout.mmcv_log}'
    )
    cache = cache_folder(layout, facts)
    build = layout.mmcv_build / cache.name
    source = _fetch_source(layout, build)
    wheels = build / 'wheels'
    pip = [layout.python, '-m', 'pip', 'wheel', '-v', '--no-deps']
    pip += ['--no-cache-dir', '--no-build-isolation', '-w', wheels, source]
    run(
        pip,
        layout.mmcv_log,
        layout.root,
        lambda text, elapsed: compile_line(text, elapsed, seconds),
        env,
    )
    wheel = next(wheels.glob('*.whl'))
    if not has_ops(wheel):
        raise SetupError(
            f'mmcv was built without its ops; {layout.mmcv_log} says why. '
            'The command that tries again: make setup REBUILD_MMCV=1'
        )
    return _keep(wheel, cache)


def _keep(wheel: Path, cache: Path) -> Path:
    """Copy a wheel into the cache; where that cannot be written, use it from here."""
    part = cache / f'{wheel.name}.{os.getpid()}'
    try:
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, part)
        return part.replace(cache / wheel.name)
    except OSError as error:
        say(f'    The wheel could not be kept for other checkouts: {error}')
        return wheel
