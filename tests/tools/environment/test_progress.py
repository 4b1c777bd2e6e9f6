"""The line that the screen shows while mmcv compiles."""

from environment import progress

LOG = """
  Running command Building wheel for onedl-mmcv (pyproject.toml)
  Compiling mmcv._ext only with CPU
  [1/78] c++ -MMD -MF /x/active_rotated_filter.o.d -g0 -O2
    89 |   bool flags[3/4] = {};
  [2/78] c++ -MMD -MF /x/assign_score_withk.o.d -g0 -O2
"""


def test_compiled_files_counts_ninja_lines_only():
    assert progress.compiled_files(LOG) == (2, 78)
    assert progress.compiled_files('Building wheel\n see [1] and [3/4]\n') is None


def test_compile_line():
    assert progress.compile_line('', 5, 400) == (
        f'[{"":24}] 0/78 files, 0:05 elapsed, about 6:35 left'
    )
    assert progress.compile_line(LOG, 500, 400).endswith('about 0:00 left')
    half = progress.compile_line('  [39/78] c++ \n', 200, 400)
    assert half == (f'[{"#" * 12:24}] 39/78 files, 3:20 elapsed, about 3:20 left')
    # After an interruption ninja counts what was left.
    last = progress.compile_line('  [2/2] c++ \n', 20, 400)
    assert last == (
        f'[{"#" * 24}] 2/2 files, 0:20 elapsed, linking and packing the wheel'
    )
