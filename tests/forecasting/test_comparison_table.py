import pytest

from daal_mmdet.forecasting.comparison_table import comparison_table


def record(loss, seed, mse, condition='clean'):
    return dict(
        loss=loss, condition=condition, seed=seed, MSE=mse, MAE=mse / 10, MASE=mse / 100
    )


def test_table_pairs_the_seeds():
    records = [record('a', s, m) for s, m in ((0, 100.0), (1, 300.0))]
    # Seeds in another order; each 10 below its pair.
    records += [record('b', s, m) for s, m in ((1, 290.0), (0, 90.0))]
    table = comparison_table(records, 'a', 'MSE').splitlines()
    assert table[0].split('|')[3:7] == [' MSE ', ' MAE ', ' MASE ', ' MSE - a ']
    assert table[2] == (
        '| clean | a | 200.0 ± 141.4 | 20.00 ± 14.14 | 2.000 ± 1.414 |  |  | 2 |'
    )
    assert table[3] == (
        '| clean | b | 190.0 ± 141.4 | 19.00 ± 14.14 | 1.900 ± 1.414 | -10.00 | '
        '[-10.00, -10.00] | 2 |'
    )
    assert len(table) == 4


def test_each_condition_has_its_rows():
    records = [
        record(loss, seed, 1.0 + seed, condition)
        for condition in ('clean', 'noisy')
        for loss in ('a', 'b')
        for seed in range(3)
    ]
    rows = comparison_table(records, 'a').splitlines()[2:]
    assert [row.split(' | ')[:2] for row in rows] == [
        ['| clean', 'a'],
        ['| clean', 'b'],
        ['| noisy', 'a'],
        ['| noisy', 'b'],
    ]


def test_one_seed_has_no_spread():
    table = comparison_table([record('a', 0, 1.0), record('b', 0, 2.0)], 'a', 'MSE')
    first, second = table.splitlines()[2:]
    assert first == '| clean | a | 1.000 | 0.100 | 0.010 |  |  | 1 |'
    assert second == '| clean | b | 2.000 | 0.200 | 0.020 | +1.000 |  | 1 |'


def test_errors_are_named():
    with pytest.raises(ValueError, match=r"baseline: expected one of \['a'\], got 'b'"):
        comparison_table([record('a', 0, 1.0)], 'b')
    with pytest.raises(ValueError, match=r'seeds: a on clean targets has \[0\], b has'):
        comparison_table([record('a', 0, 1.0), record('b', 1, 1.0)], 'a')
