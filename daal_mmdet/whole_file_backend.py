"""A local file backend whose files are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mmengine.fileio import LocalBackend, register_backend

__all__ = ['PARTIAL_SUFFIX', 'NotWrittenError', 'WholeFileBackend']

PARTIAL_SUFFIX = '.partial'


class NotWrittenError(OSError):
    """A file could not be written; what was under its name is still there."""


class WholeFileBackend(LocalBackend):
    """``LocalBackend`` that writes a file beside its place and moves it there.

    mmengine writes a checkpoint in place, so that a kill or a full disk leaves half of
    one under the name of a whole. Here the bytes go to ``<name>.partial``, are flushed
    to the disk, and take their name in one step (``os.replace``): under the name there
    is the old file or the new one, whatever happens. A ``.partial`` left behind is
    replaced by the next write.

    Checkpoints use it by one key of the config::

        default_hooks = dict(checkpoint=dict(backend_args=dict(backend='whole_file')))
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file.

        Raises:
            NotWrittenError: If that fails, for a full disk for example; the message
                says that nothing under the name was touched.
        """
        self._write(filepath, 'wb', None, lambda file: file.write(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file.

        Raises:
            NotWrittenError: As :meth:`put`.
        """
        self._write(filepath, 'w', encoding, lambda file: file.write(obj))

    def _write(
        self,
        filepath: str | Path,
        mode: str,
        encoding: str | None,
        write: Callable[[IO], object],
    ) -> None:
        path = Path(filepath)
        partial = path.with_name(path.name + PARTIAL_SUFFIX)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, mode, encoding=encoding) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise NotWrittenError(
                error.errno,
                f'could not write {path} ({os.strerror(error.errno or 0)}); no other '
                'file was touched. Make room or give the rights, and go on with '
                '--resume',
            ) from error


register_backend('whole_file', WholeFileBackend, force=True)
