"""What an interpreter says of its packages."""

import sys
from pathlib import Path

from environment import asking, decisions


def test_probe_of_this_interpreter():
    probe = asking.probe(Path(sys.executable))
    import torch

    assert probe['versions']['torch'] == torch.__version__
    assert probe['python'] == list(sys.version_info[:3])
    assert (Path(probe['include']) / 'Python.h').name == 'Python.h'
    assert set(probe['versions']) == set(decisions.PROVIDERS)


def test_probe_of_no_interpreter(tmp_path):
    assert asking.probe(tmp_path / 'python') is None
