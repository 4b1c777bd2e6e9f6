"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ['write_whole']


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file whole or not at all, text in UTF-8, and make its folder.

    Several processes, of several machines too, may write the same file at once.

    Raises:
        OSError: If it can't be written; the message names the file.
    """
    path = Path(path)
    if isinstance(content, str):
        content = content.encode('utf-8')
    partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
