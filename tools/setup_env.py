#!/usr/bin/env python3
"""Make the project's environment in .venv, or complete it.

`make setup` (and so `make demo` and `make test`) runs this with the system's Python. It
reuses or installs PyTorch, compiles mmcv with its ops against that PyTorch, installs
MMEngine, MMDetection and this package, and ends with tools/check_env.py. Each step asks
the environment what is there, so a second run takes a second, and an interrupted one,
the compilation included, goes on where it stopped.
"""

import sys

if sys.version_info < (3, 10):
    # Before all that an older Python cannot read.
    sys.exit(
        'Python >= 3.10 is needed; %s is Python %d.%d. Name a newer one: '
        'make PYTHON=/path/to/python3.11 ...'
        % ((sys.executable,) + sys.version_info[:2])
    )

import argparse
import importlib.util
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from environment import asking, decisions, mmcv_wheel
from environment.layout import Layout
from environment.processes import SetupError, ask, only_one, run, say
from environment.progress import clock

REUSED_TORCH = 'daal_mmdet_reused_torch.pth'
WHAT = {
    'venv': 'create .venv (about 10 s)',
    'torch': 'PyTorch (0.2 GB for a CPU, 3 GB with CUDA; usually 1 to 5 min)',
    'mmcv': 'mmcv with its compiled ops',
    'packages': 'MMEngine, MMDetection, daal_mmdet, test tools (1 to 3 min)',
    'check': 'check that everything runs (about 10 s)',
}


class Setup:
    """One run of the set-up.

    Args:
        layout: The paths of the checkout.
        torch: PyTorch version asked for, None for any that serves.
        reuse_torch: Whether a PyTorch outside of the environment may be used.
        rebuild_mmcv: Whether to compile mmcv even if it is there.
    """

    def __init__(
        self, layout: Layout, torch: str | None, reuse_torch: bool, rebuild_mmcv: bool
    ) -> None:
        self.layout = layout
        self.torch = torch
        self.reuse_torch = reuse_torch
        self.rebuild_mmcv = rebuild_mmcv
        self.wheel: Path | None = None
        self.compiled = False

    def run(self) -> None:
        """Make every step that is missing."""
        found = asking.probe(self.layout.python)
        if found is not None and self.tidy(Path(found['site'])):
            found = asking.probe(self.layout.python)
        if found is not None and tuple(found['python']) < decisions.PYTHON_LOWEST:
            version = '.'.join(map(str, found['python']))
            raise SetupError(
                f'{self.layout.venv} is of Python {version}, and >= 3.10 is needed. '
                'Remove it and start again: rm -rf .venv && make setup'
            )
        inputs = decisions.inputs_hash(self.layout.root)
        steps = decisions.missing_steps(
            found,
            self.stamp(),
            inputs,
            self.layout.root.as_uri(),
            self.torch,
            self.rebuild_mmcv,
        )
        if steps:
            say(f'Set-up of {self.layout.venv}')
            say('Ctrl-C is safe at any moment: the same command goes on from there.')
        for number, step in enumerate(steps, 1):
            say(f'[{number}/{len(steps)}] {WHAT[step]}')
            begin = time.monotonic()
            getattr(self, f'make_{step}')()
            say(f'    done in {clock(time.monotonic() - begin)}')
        if steps:
            found = self.found()
            stamp = {'inputs': inputs, 'versions': found['versions']}
            self.layout.stamp.write_text(json.dumps(stamp))
            shutil.rmtree(self.layout.mmcv_build, ignore_errors=True)
        shown = 'torch', 'mmcv', 'mmengine', 'mmdet'
        names = ', '.join(f'{name} {found["versions"][name]}' for name in shown)
        say(f'Environment ready: .venv ({names})')

    def tidy(self, site: Path) -> bool:
        """Drop what an interrupted pip left, so that it installs those packages again.

        pip writes INSTALLER once all files of a package are there, and renames the
        files of one that it is about to replace to ``~...``.
        """
        if not self.reuse_torch:
            (site / REUSED_TORCH).unlink(missing_ok=True)
        halves = [d for d in site.glob('*.dist-info') if not (d / 'INSTALLER').exists()]
        halves += site.glob('~*')
        for half in halves:
            say(f'Removing what an interrupted installation left: {half.name}')
            shutil.rmtree(half) if half.is_dir() else half.unlink()
        return bool(halves) or not self.reuse_torch

    def stamp(self) -> dict[str, Any]:
        """Return what the last successful set-up wrote, ``{}`` if there is nothing."""
        try:
            return json.loads(self.layout.stamp.read_text())
        except (OSError, json.JSONDecodeError):
            return {}

    def found(self) -> dict[str, Any]:
        """Return what the environment holds now."""
        found = asking.probe(self.layout.python)
        if found is None:
            raise SetupError(
                f'{self.layout.python} does not run. Remove the environment and start '
                'again: rm -rf .venv && make setup'
            )
        return found

    def pip(self, *arguments: object) -> None:
        """Run pip of the environment."""
        command = [self.layout.python, '-m', 'pip', *arguments]
        run(command, self.layout.log, self.layout.root)

    def make_venv(self) -> None:
        """Create the environment anew, or give it pip if only that is missing."""
        if importlib.util.find_spec('ensurepip') is None:
            raise SetupError(
                f'{sys.executable} cannot make virtual environments with pip. Debian, '
                'Ubuntu: sudo apt-get install python3-venv. Or name another Python: '
                'make PYTHON=/path/to/python3.11 ...'
            )
        if asking.probe(self.layout.python) is not None:
            command = [self.layout.python, '-m', 'ensurepip', '--upgrade']
        else:
            if self.layout.venv.is_symlink():
                raise SetupError(
                    f'{self.layout.venv} is a link to {self.layout.venv.readlink()}, '
                    'where no Python runs. Remove the link and start again: '
                    'rm .venv && make setup'
                )
            shutil.rmtree(self.layout.venv, ignore_errors=True)
            self.layout.venv.mkdir()
            # sys.executable may lie in the very .venv to be replaced.
            base = getattr(sys, '_base_executable', None) or sys.executable
            command = [base, '-m', 'venv', self.layout.venv]
        run(command, self.layout.log, self.layout.root)

    def make_torch(self) -> None:
        """Reuse a PyTorch of the interpreter that runs this, or install one."""
        found = self.found()
        if not found['versions']['mmcv'] and not mmcv_wheel.any_cached(
            self.layout, found
        ):
            mmcv_wheel.require_compiler(found['include'])  # before a long download
        link = Path(found['site']) / REUSED_TORCH
        link.unlink(missing_ok=True)
        if self.reuse_torch and self.link_outer_torch(link, found):
            return
        version = self.torch or decisions.TORCH
        if not decisions.torch_satisfies(version):
            say(f'    NOTE: mmcv {decisions.MMCV} was not seen to compile with it.')
        self.pip('install', f'torch=={version}')

    def link_outer_torch(self, link: Path, found: dict[str, Any]) -> bool:
        """Put the folder of an outer PyTorch behind the environment's own packages.

        A .pth file does this for the system's Python, conda and an active virtual
        environment alike; --system-site-packages would not see the last. Everything
        in that folder becomes visible, so pip may find a package there good enough.
        """
        if Path(sys.prefix).resolve() == self.layout.venv.resolve():
            return False
        outer = asking.working_torch(sys.executable, self.layout.root)
        if (
            outer is None
            or outer['python'] != found['python'][:2]
            or not decisions.torch_satisfies(outer['version'], self.torch)
        ):
            return False
        link.write_text(outer['site'] + '\n')
        inner = asking.working_torch(str(self.layout.python), self.layout.root)
        if inner is None or inner['version'] != outer['version']:
            link.unlink()
            return False
        say(
            f'    using PyTorch {outer["version"]} of {outer["site"]}; '
            'REUSE_TORCH=0 installs one of its own'
        )
        return True

    def make_mmcv(self) -> None:
        """Find or compile a wheel with ops; the next step installs it."""
        found = self.found()
        beside_torch = found['versions']['mmcv']
        if decisions.mmcv_satisfies(beside_torch) and not self.rebuild_mmcv:
            say(f'    using mmcv {beside_torch}, found beside that PyTorch')
            return
        self.pip('install', *decisions.BUILD_TOOLS)
        facts = self.facts()
        wheels = mmcv_wheel.candidates(self.layout, found, facts)
        if wheels and not self.rebuild_mmcv:
            self.wheel = wheels[0]
            say(f'    using the wheel compiled earlier: {self.wheel}')
        else:
            self.compile_mmcv(found, facts)

    def facts(self) -> dict[str, Any]:
        """Return what decides how mmcv is compiled."""
        facts = asking.torch_facts(self.layout.python)
        if facts is None:
            raise SetupError(
                'PyTorch of .venv cannot be imported. Install it anew: '
                'rm -rf .venv && make setup REUSE_TORCH=0'
            )
        return facts

    def compile_mmcv(self, found: dict[str, Any], facts: dict[str, Any]) -> None:
        """Compile mmcv; where it is installed already, replace it."""
        self.wheel = mmcv_wheel.compile_wheel(self.layout, found, facts)
        self.compiled = True
        if found['versions']['mmcv']:
            self.pip('install', '--force-reinstall', '--no-deps', self.wheel)

    def make_packages(self) -> None:
        """Install the stack and this package in one go, so that versions agree."""
        self.pip('install', *decisions.BUILD_TOOLS)
        wheel = [self.wheel] if self.wheel else []
        ours = ['--editable', '.[test,dev]']
        self.pip('install', '--no-build-isolation', *wheel, *decisions.STACK, *ours)

    def make_check(self) -> None:
        """Use every part; mend mmcv without ops and OpenCV without libGL."""
        result = self.check()
        if result['failed'] == 'cv2' and '.so' in result['error']:
            # opencv-python wants the libraries of a desktop, libGL above all.
            say(f'    {result["error"]}: OpenCV is replaced by its headless build')
            version = self.found()['versions']['cv2']
            headless = f'opencv-python-headless=={version}'
            self.pip('install', '--force-reinstall', '--no-deps', headless)
            result = self.check()
        if result['failed'] == 'mmcv.ops':
            say(f'    mmcv.ops does not run: {result["error"]}')
            result = self.mend_mmcv(result)
        if result['failed']:
            raise SetupError(
                f'{result["failed"]} does not work: {result["error"]}\n{result["mend"]}'
            )
        for name, detail in result['passed'].items():
            say(f'    {name}: {detail}')

    def mend_mmcv(self, result: dict[str, Any]) -> dict[str, Any]:
        """Replace mmcv by a wheel that runs here; compile one if there is none."""
        found, facts = self.found(), self.facts()
        if self.compiled:
            return result  # it was compiled a moment ago; again would be the same
        for wheel in mmcv_wheel.candidates(self.layout, found, facts):
            if wheel != self.wheel:
                say(f'    trying the wheel compiled earlier: {wheel}')
                self.pip('install', '--force-reinstall', '--no-deps', wheel)
                result = self.check()
            if result['failed'] != 'mmcv.ops':
                return result
        say('    mmcv is compiled anew')
        self.pip('install', *decisions.BUILD_TOOLS)
        self.compile_mmcv(found, facts)
        return self.check()

    def check(self) -> dict[str, Any]:
        """Run tools/check_env.py in the environment."""
        script = self.layout.root / 'tools' / 'check_env.py'
        result = ask([self.layout.python, script, '--json'], self.layout.root)
        if result is None:
            raise SetupError(
                f'The check ended without a result. {self.layout.python} {script} '
                'shows why.'
            )
        return result


def torch_version(text: str) -> str:
    """Check a version given by the user."""
    try:
        decisions.release(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--torch',
        type=torch_version,
        metavar='VERSION',
        help=f'PyTorch to use (default: any >=2.4,<2.14, else {decisions.TORCH})',
    )
    parser.add_argument(
        '--no-reuse-torch',
        dest='reuse_torch',
        action='store_false',
        help='do not use a PyTorch that lies outside of .venv',
    )
    parser.add_argument(
        '--rebuild-mmcv', action='store_true', help='compile mmcv again'
    )
    return parser.parse_args(arguments)


def interrupt(number: int, frame: object) -> None:
    """Treat SIGTERM and SIGHUP like Ctrl-C, also where a shell ignores that."""
    raise KeyboardInterrupt


def main() -> int:
    """Set the environment up; return the exit status."""
    args = parse_args()
    layout = Layout(Path(__file__).resolve().parent.parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        with only_one(layout.root):
            Setup(layout, args.torch, args.reuse_torch, args.rebuild_mmcv).run()
    except KeyboardInterrupt:
        say('\nInterrupted. The same command goes on from here.')
        return 130
    # The latter of a folder without write access, or a full disk.
    except (SetupError, OSError) as error:
        say(f'\nSet-up stopped: {error}')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
