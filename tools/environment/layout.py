"""Where the environment's files lie."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of one checkout."""

    root: Path

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.root / '.venv'

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.venv / 'bin' / 'python'

    @property
    def stamp(self) -> Path:
        """What the last set-up that passed its final check saw."""
        return self.venv / 'setup-stamp.json'

    @property
    def log(self) -> Path:
        """Output of every step but the compilation."""
        return self.venv / 'setup.log'

    @property
    def mmcv_log(self) -> Path:
        """Output of mmcv's compilation."""
        return self.venv / 'setup-mmcv.log'

    @property
    def mmcv_build(self) -> Path:
        """Where mmcv is compiled; kept after an interruption."""
        return self.venv / 'build-mmcv'

    @property
    def wheel_cache(self) -> Path:
        """Compiled mmcv wheels, shared by all checkouts of the user."""
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        return Path(cache) / 'daal_mmdet' / 'wheels'
