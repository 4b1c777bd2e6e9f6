"""Ask an interpreter what is installed in it."""

import json
from pathlib import Path
from typing import Any

from .decisions import PROVIDERS
from .processes import ask

# Versions by import name, requirements of ours (extras included) that are not met,
# and the checkout from which our package is installed.
_PROBE = """
import json, sys, sysconfig
from importlib import metadata

def version(*names):
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None

versions = {k: version(*v) for k, v in json.loads(sys.argv[1]).items()}
unmet, home = ['daal_mmdet'], None
try:
    from packaging.requirements import Requirement
    ours = metadata.distribution('daal_mmdet')
    home = json.loads(ours.read_text('direct_url.json') or '{}').get('url')
    unmet = []
    for wanted in map(Requirement, ours.requires or []):
        has = version(wanted.name)
        extras = [{'extra': name} for name in ('', 'test', 'dev')]
        if wanted.marker and not any(map(wanted.marker.evaluate, extras)):
            continue
        if has is None or not wanted.specifier.contains(has, prereleases=True):
            unmet.append(str(wanted))
except (ImportError, metadata.PackageNotFoundError):
    pass
print(json.dumps({
    'python': list(sys.version_info[:3]), 'versions': versions, 'unmet': unmet,
    'home': home, 'include': sysconfig.get_path('include'),
    'site': sysconfig.get_path('purelib'),
}))
"""

_OUTER_TORCH = """
import json, sys
from importlib import metadata
import torch
assert (torch.zeros(2) + 1).sum() == 2
print(json.dumps({
    'python': list(sys.version_info[:2]), 'version': torch.__version__,
    'site': str(metadata.distribution('torch').locate_file('').resolve()),
}))
"""

_TORCH_FACTS = """
import json, re, subprocess
import torch
from torch.utils.cpp_extension import CUDA_HOME
nvcc = None
if CUDA_HOME:
    try:
        command = [CUDA_HOME + '/bin/nvcc', '--version']
        text = subprocess.check_output(command, text=True)
        nvcc = re.search('release ([0-9.]+)', text).group(1)
    except (OSError, subprocess.CalledProcessError, AttributeError):
        nvcc = None
print(json.dumps({
    'version': torch.__version__, 'cuda': torch.version.cuda, 'nvcc': nvcc,
    'gpu': torch.cuda.is_available(),
}))
"""


def probe(python: Path) -> dict[str, Any] | None:
    """Return what an environment holds, None where its interpreter does not run."""
    command = [python, '-c', _PROBE, json.dumps(PROVIDERS)]
    return ask(command, python.parent) if python.exists() else None


def working_torch(python: str, cwd: Path) -> dict[str, Any] | None:
    """Return version and place of a PyTorch that works, None if there is none."""
    return ask([python, '-c', _OUTER_TORCH], cwd)


def torch_facts(python: Path) -> dict[str, Any] | None:
    """Return PyTorch's version and what decides whether CUDA ops can be compiled."""
    return ask([python, '-c', _TORCH_FACTS], python.parent)
