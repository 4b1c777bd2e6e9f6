"""Finished runs as lines of JSON in a file that survives a kill."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ['append_record', 'first_of_other_settings', 'last_of_each', 'read_records']


def read_records(path: Path) -> list[dict]:
    """Read finished runs; none if there is no file. A line cut short by a kill is lost.

    Raises:
        ValueError: If a line before the last is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding='utf-8').splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(
                    f'{path}: line {number} is no JSON: {line!r}'
                ) from error
    return records


def last_of_each(records: Iterable[dict], keys: Sequence[str]) -> list[dict]:
    """Of the records that agree in ``keys`` the last, in the order of the first."""
    runs = {tuple(record[key] for key in keys): record for record in records}
    return list(runs.values())


def first_of_other_settings(
    records: Iterable[dict], keys: Sequence[str]
) -> dict | None:
    """First record whose ``config`` is not that of those before it.

    Args:
        records: Finished runs.
        keys: Records are compared with those that agree in these.

    Returns:
        The record; None if all agree, or have no ``config``.
    """
    configs: dict[tuple, str | None] = {}
    for record in records:
        place, config = tuple(record[key] for key in keys), record.get('config')
        if configs.setdefault(place, config) != config:
            return record
    return None


def append_record(path: Path, record: Mapping, keys: Sequence[str] = ()) -> None:
    """Add a line; several processes may do so at once.

    What a kill left of an unfinished line is cut off first.

    Args:
        path: The file.
        record: The finished run.
        keys: Where a line agrees in all of these, nothing is added; without keys, no
            line is looked at.

    Raises:
        ValueError: If the record holds a value that JSON lacks, such as NaN.
    """
    line = json.dumps(record, allow_nan=False).encode() + b'\n'
    with path.open('ab+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        written = file.read()
        whole = written.rfind(b'\n') + 1
        if keys and any(
            all(known.get(key) == record[key] for key in keys)
            for known in map(_parsed, written.splitlines())
        ):
            return
        if whole < len(written) and not _parsed(written[whole:]):
            file.truncate(whole)
        elif whole < len(written):
            line = b'\n' + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _parsed(line: bytes) -> dict:
    """The record in a line; empty for what is none."""
    try:
        return json.loads(line)
    except ValueError:
        return {}
