"""What the screen shows while mmcv compiles; pure functions."""

import re

MMCV_FILES = 78
CORE_SECONDS_PER_FILE = 10.2  # measured with CFLAGS='-g0 -O2' on a 2-core machine


def clock(seconds: float) -> str:
    """Format seconds as ``m:ss``."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def estimate(jobs: int) -> float:
    """Return the seconds that compiling mmcv's CPU ops takes with ``jobs`` cores."""
    return MMCV_FILES * CORE_SECONDS_PER_FILE / jobs


def compiled_files(log_text: str) -> tuple[int, int] | None:
    """Return (finished, total) of ninja's last ``[n/m]`` line, None before the first.

    After an interruption ninja counts only the files that were left.
    """
    counts = re.findall(r'^\s*\[(\d+)/(\d+)\] ', log_text, re.MULTILINE)
    return (int(counts[-1][0]), int(counts[-1][1])) if counts else None


def compile_line(log_text: str, elapsed: float, expected: float) -> str:
    """Return the line that shows how far the compilation is.

    Args:
        log_text: The output of pip -v so far.
        elapsed: Seconds since its start.
        expected: Seconds that it should take in all, shown until its pace is known.
    """
    done, total = compiled_files(log_text) or (0, MMCV_FILES)
    if done == total:
        left = 'linking and packing the wheel'
    elif done < 4:
        left = f'about {clock(max(expected - elapsed, 0))} left'
    else:
        left = f'about {clock(elapsed / done * (total - done))} left'
    bar = '#' * (24 * done // total)
    return f'[{bar:<24}] {done}/{total} files, {clock(elapsed)} elapsed, {left}'
