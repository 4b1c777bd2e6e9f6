import builtins

import numpy as np
import pytest

from daal_mmdet.forecasting.series import Series, load_series


def write(path, text):
    path.write_text(text, encoding='utf-8')
    return path


def test_a_csv_file_by_column(tmp_path):
    path = write(tmp_path / 'a.csv', 'year, wet,dry\n1700,1.5,-2\n1701,2.5,3e1\n')
    series = load_series(path)
    assert series.columns == ('year', 'wet', 'dry')
    np.testing.assert_array_equal(series.values, [[1700, 1.5, -2], [1701, 2.5, 30]])
    series = load_series(str(path), ['dry', 'wet'])
    assert series.columns == ('dry', 'wet')
    np.testing.assert_array_equal(series.values, [[-2, 1.5], [30, 2.5]])


def test_text_in_a_column_that_is_not_used_does_no_harm(tmp_path):
    path = write(tmp_path / 'a.csv', 'date,value\n1 May,1\n2 May,2\n')
    np.testing.assert_array_equal(load_series(path, ['value']).values, [[1], [2]])
    with pytest.raises(ValueError, match=r"line 2 of .*a.csv holds '1 May' in column"):
        load_series(path)


def test_arrays_and_lists():
    np.testing.assert_array_equal(load_series([1, 2, 3]).values, [[1], [2], [3]])
    series = load_series(np.arange(6).reshape(3, 2), ['1'])
    assert series.columns == ('1',)
    np.testing.assert_array_equal(series.values, [[1], [3], [5]])


def test_sunspots():
    pytest.importorskip('statsmodels', reason='the forecasting extra is not installed')
    series = load_series('statsmodels:sunspots', ['SUNACTIVITY'])
    assert series.values.shape == (309, 1)
    np.testing.assert_array_equal(series.values[:3, 0], [5, 11, 16])
    with pytest.raises(
        ValueError, match=r"no data set 'moons', expected one of .*nile"
    ):
        load_series('statsmodels:moons')
    with pytest.raises(ValueError, match=r"of .*'SUNACTIVITY'.* got \['A'\]"):
        load_series('statsmodels:sunspots', ['A'])


@pytest.mark.parametrize('name', ['utils', 'get_rdataset', 'sunspots.data', ''])
def test_what_is_no_bundled_data_set_is_named(name):
    pytest.importorskip('statsmodels', reason='the forecasting extra is not installed')
    with pytest.raises(
        ValueError, match=f'bundles no data set {name!r}, expected one of .*sunspots'
    ):
        load_series(f'statsmodels:{name}')


def test_a_bundled_column_of_text_is_named():
    pytest.importorskip('statsmodels', reason='the forecasting extra is not installed')
    with pytest.raises(
        ValueError,
        match=r"column 'firm' of statsmodels:grunfeld does .*columns=\[...\]",
    ):
        load_series('statsmodels:grunfeld')
    assert load_series('statsmodels:grunfeld', ['invest']).values.shape == (220, 1)


def test_a_missing_statsmodels_names_the_extra(monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith('statsmodels'):
            raise ImportError(f'No module named {name!r}')
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', refuse)
    with pytest.raises(ImportError, match=r"pip install 'daal_mmdet\[forecasting\]'"):
        load_series('statsmodels:sunspots')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'is empty, expected a line of column names'),
        ('a,b\n1,2\n3\n', r'line 3 of .* has 1 cells, expected 2'),
        ('a\n1\n\n', r'line 3 of .* has 0 cells, expected 1'),
        ('a\n1\nnan\n', r"1 values are not finite, the first in row 1 of column 'a'"),
        ('a\n1\n""\n', r"line 3 of .* holds '' in column 'a', expected a number"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_series(write(tmp_path / 'a.csv', text))


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = write(tmp_path / 'a.csv', 'a,b,a\n1,2,3\n')
    for columns in (None, ['a']):
        with pytest.raises(
            ValueError, match=r"a.csv has 2 columns named 'a', expected"
        ):
            load_series(path, columns)
    np.testing.assert_array_equal(load_series(path, ['b']).values, [[2]])


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_bytes('größe\n1\n'.encode('latin-1'))
    with pytest.raises(ValueError, match=r'series: .*a.csv is no UTF-8 text'):
        load_series(path)


@pytest.mark.parametrize('source', [[[1, 2], [3]], ['a', 'b'], {'a': [1]}])
def test_what_holds_no_numbers_is_named(source):
    kind = type(source).__name__
    with pytest.raises(
        ValueError, match=rf'series: expected a file, .* \(T, C\), got {kind} \('
    ):
        load_series(source)


def test_bad_arguments_are_named(tmp_path):
    path = write(tmp_path / 'a.csv', 'a,b\n1,2\n')
    with pytest.raises(ValueError, match=r"one or more of \('a', 'b'\) .*got \['c'\]"):
        load_series(path, ['c'])
    with pytest.raises(ValueError, match=r'columns: .* of .*a.csv, got \[\]'):
        load_series(path, [])
    with pytest.raises(ValueError, match="columns: expected a list of names, got 'a'"):
        load_series(path, 'a')
    with pytest.raises(FileNotFoundError, match='missing.csv'):
        load_series(tmp_path / 'missing.csv')
    with pytest.raises(ValueError, match=r'expected shape \(T,\) or \(T, C\), got'):
        load_series(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r'expected shape \(T, 2\), got \(3, 1\)'):
        Series(np.zeros((3, 1)), ['a', 'b'])
