import dataclasses

import numpy as np
import pytest

from daal_mmdet.benchmark.table import benchmark_table, select_records


def record(variant, seed, mAP, **more):
    part = dict(mAP=mAP, class_AP=dict(cat=mAP / 2, dog=mAP / 4, cow=None))
    return dict(data='toy', variant=variant, seed=seed, val=None, test=part) | more


RECORDS = [
    record('one', 0, 0.1, seconds_per_iteration=0.2),
    record('one', 1, 0.3, seconds_per_iteration=0.3),
    record('one', 2, 0.2, seconds_per_iteration=0.4),
    # Other order, one seed missing; 0.04 and 0.02 above their pairs.
    record('two', 2, 0.22),
    record('two', 0, 0.14),
]


def test_table_by_hand(spec):
    lines = benchmark_table(RECORDS, spec).splitlines()
    assert lines[0] == 'toy: test part, mean ± standard deviation over seeds.'
    assert lines[2] == (
        '| variant | seeds | mAP | rare | AP of cat | AP of dog | AP of cow | '
        'ms / iteration |'
    )
    assert lines[4] == (
        '| one | 3 | 0.200 ± 0.100 | 0.075 ± 0.037 | 0.100 ± 0.050 | 0.050 ± 0.025 | '
        '- | 300 |'
    )
    assert lines[5] == (
        '| two | 2 | 0.180 ± 0.057 | 0.068 ± 0.021 | 0.090 ± 0.028 | 0.045 ± 0.014 | '
        '- | - |'
    )
    assert lines[7] == (
        'Difference to one, paired by seed: mean and its 95 % bootstrap interval, bold '
        "where clear of zero, as Student's t interval is too."
    )
    assert lines[11] == (
        '| two | 2 | +0.030 [+0.020, +0.040] | +0.011 [+0.007, +0.015] |'
    )
    assert lines[13:] == [
        '- Not there yet: two, seed 1.',
        '- Not there yet: three, seed 0, 1, 2.',
    ]


@pytest.mark.parametrize(
    ('differences', 'cell'),
    [
        ((0.03, 0.02, 0.04), '**+0.030 [+0.020, +0.040]**'),
        # The bootstrap's is clear of zero, Student's, -0.024 to 0.124, is not.
        ((0.05, 0.02, 0.08), '+0.050 [+0.020, +0.080]'),
        ((-0.1, 0.0, 0.4), '+0.100 [-0.100, +0.400]'),
        ((-0.03, -0.02, -0.04), '**-0.030 [-0.040, -0.020]**'),
    ],
)
def test_bold_is_what_both_intervals_hold_clear_of_zero(spec, differences, cell):
    records = [record('one', s, 0.2) for s in range(3)]
    records += [record('two', s, 0.2 + d) for s, d in enumerate(differences)]
    row = benchmark_table(records, spec).splitlines()[11]
    assert row.startswith(f'| two | 3 | {cell} |')


def test_standard_deviation_is_that_of_a_sample(spec):
    values = [0.11, 0.35, 0.28]
    records = [record('one', s, v) for s, v in enumerate(values)]
    spread = np.std(values, ddof=1)
    assert f'{np.mean(values):.3f} ± {spread:.3f}' in benchmark_table(records, spec)


def test_the_heading_tells_the_setting(spec):
    table = benchmark_table(RECORDS, spec, setting='4 epochs')
    assert table.startswith('toy, 4 epochs: test part, mean ± standard deviation')


def test_a_part_that_is_not_there(spec):
    table = benchmark_table(RECORDS, spec, 'val')
    assert table == 'No finished run on toy with a val part.\n'


def test_without_baseline_there_are_no_differences(spec):
    table = benchmark_table(RECORDS[3:], spec)
    assert 'No differences: they need one and another variant.' in table


def test_what_the_runs_differ_in_is_told(spec):
    records = [
        record('one', 0, 0.1, code='aa', device='cpu', versions=dict(torch='2.1')),
        record('one', 1, 0.1, code='bb', device='cpu', threads=1, iterations=400),
        record('one', 2, 0.1, code=None, threads=8, versions=dict(torch='2.13')),
        record('two', 2, 0.1, setting='1200 iters', iterations=1200),
        record('two', 1, 0.1, setting='400 iters'),
    ]
    table = benchmark_table(records, spec)
    assert [line for line in table.splitlines() if 'differ in' in line] == [
        "- The runs differ in this package's code: aa; bb.",
        '- The runs differ in setting: 1200 iters; 400 iters.',
        '- The runs differ in iterations: 400; 1200.',
        '- The runs differ in threads: 1; 8.',
        '- The runs differ in version of torch: 2.1; 2.13.',
    ]


def test_unknown_figures_are_named(spec):
    wrong = dataclasses.replace(spec, metrics=('mAP_99',))
    with pytest.raises(ValueError, match=r"one of \['rare', 'mAP'\], got 'mAP_99'"):
        benchmark_table(RECORDS, wrong)
    wrong = dataclasses.replace(spec, class_means=dict(rare=['horse']))
    with pytest.raises(ValueError, match=r"'rare' names \['horse'\]; .* have \['cat'"):
        benchmark_table(RECORDS, wrong)
    with pytest.raises(ValueError, match='split: expected one of'):
        benchmark_table(RECORDS, spec, 'train')


def test_records_of_a_spec_are_chosen(spec):
    records = [
        record('one', 0, 0.1, config='old'),
        record('one', 0, 0.2, config='new'),
        record('one', 1, 0.3, config='new'),
        record('one', 1, 0.4, config='new'),
        record('one', 9, 0.5, config='new'),
        record('two', 0, 0.6),
        record('two', 1, 0.7, data='other set'),
        record('two', 2, 0.7, config='old'),
        record('twin of one', 2, 0.8, config='new', data='other spec'),
    ]
    hashes = {'one': 'new', 'two': 'new too', 'three': 'x'}
    chosen = select_records(records, spec, hashes)
    got = [(r['variant'], r['seed'], r['test']['mAP']) for r in chosen]
    assert got == [
        ('one', 0, 0.2),
        ('one', 1, 0.4),
        ('one', 2, 0.8),
        ('two', 0, 0.6),
    ]
    by_name = select_records(records[5:], spec)
    assert [(r['variant'], r['seed']) for r in by_name] == [('two', 0), ('two', 2)]
    with pytest.raises(ValueError, match=r"'one' are of several configs \['new', 'old"):
        select_records(records[:3], spec)
