"""Which versions will do and which steps are still to be made; pure functions."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PYTHON_LOWEST = (3, 10)
TORCH = '2.13.0'  # the newest that was seen to compile mmcv and run the stack
TORCH_LOWEST, TORCH_BELOW = (2, 4), (2, 14)  # onedl-mmcv itself asks for 2.4
MMCV = '2.3.6'
MMCV_LOWEST = (2, 0)
STACK = ('onedl-mmengine==0.10.12', 'onedl-mmdetection==3.5.1')
# mmcv asks for setuptools 80; 82 drops pkg_resources, which TensorBoard imports.
BUILD_TOOLS = ('ninja', 'setuptools>=80,<82', 'wheel', 'psutil', 'packaging>=24.2')

# Import name -> the distributions that provide it; any of them will do.
PROVIDERS = {
    'pip': ('pip',),
    'numpy': ('numpy',),
    'cv2': ('opencv-python', 'opencv-python-headless'),
    'torch': ('torch',),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
}

# The files that decide what the environment holds.
INPUTS = (
    'setup.py',
    'pyproject.toml',
    'tools/check_env.py',
    'tools/environment/decisions.py',
)


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: ``'2.13.0+cpu'`` gives ``(2, 13, 0)``.

    Raises:
        ValueError: The text does not begin with a number.
    """
    match = re.match(r'\d+(\.\d+)*', version)
    if match is None:
        raise ValueError(f'{version!r} is not a version such as {TORCH!r}')
    return tuple(int(part) for part in match.group().split('.'))


def torch_satisfies(
    found: str | None, wanted: str | None = None, proven: str | None = None
) -> bool:
    """Tell whether an installed PyTorch will do.

    Args:
        found: Its version, None if there is none.
        wanted: The version that the user asks for, None for any that serves. Without
            a local part (``+cpu``) any local part will do.
        proven: The version with which the environment passed its final check.
    """
    if found is None:
        return False
    if wanted is not None:
        found = found if '+' in wanted else found.split('+')[0]
        return _without_zeros(found) == _without_zeros(wanted)
    return found == proven or TORCH_LOWEST <= release(found)[:2] < TORCH_BELOW


def _without_zeros(version: str) -> str:
    """``'2.13.0+cpu'`` without the zeros at its end, which mean nothing to pip."""
    return re.sub(r'(\.0)+(?![.\d])', '', version)


def mmcv_satisfies(found: str | None) -> bool:
    """Tell whether an installed mmcv will do, if its ops run."""
    return found is not None and release(found)[:2] >= MMCV_LOWEST


def can_compile_cuda(facts: Mapping[str, Any]) -> bool:
    """Tell whether mmcv's CUDA ops can be compiled.

    That takes a visible GPU and an nvcc of the same major version as PyTorch's CUDA;
    otherwise PyTorch's build extension stops with an error.

    Args:
        facts: ``gpu`` (bool), ``cuda`` and ``nvcc`` (versions or None).
    """
    if not (facts['gpu'] and facts['cuda'] and facts['nvcc']):
        return False
    return release(facts['cuda'])[0] == release(facts['nvcc'])[0]


def inputs_hash(root: Path) -> str:
    """Return one hash of the files in ``INPUTS``."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def missing_steps(
    found: Mapping[str, Any] | None,
    stamp: Mapping[str, Any],
    inputs: str,
    home: str,
    torch: str | None = None,
    rebuild_mmcv: bool = False,
) -> list[str]:
    """Return the steps that the environment still needs, in their order.

    The environment itself is asked; the stamp only spares the final check, and says
    whether the files that define the environment changed since.

    Args:
        found: What ``asking.probe`` found; None where there is no usable environment.
        stamp: ``inputs`` and ``versions`` of the last set-up that passed its final
            check, ``{}`` if there is none.
        inputs: ``inputs_hash`` of now.
        home: URI of this checkout, from which the package must be installed.
        torch: The PyTorch version that the user asks for, None for any that serves.
        rebuild_mmcv: Whether the user asks to compile mmcv again.
    """
    if found is None:
        return ['venv', 'torch', 'mmcv', 'packages', 'check']
    versions = found['versions']
    steps = [] if versions['pip'] else ['venv']
    proven = stamp.get('versions', {}).get('torch')
    if not torch_satisfies(versions['torch'], torch, proven):
        steps.append('torch')
    if rebuild_mmcv or not mmcv_satisfies(versions['mmcv']):
        steps.append('mmcv')
    if (
        'mmcv' in steps
        or versions['mmengine'] is None
        or versions['mmdet'] is None
        or found['unmet']
        or found['home'] != home
        or stamp.get('inputs') != inputs
    ):
        steps.append('packages')
    if steps or stamp.get('versions') != versions:
        steps.append('check')
    return steps
