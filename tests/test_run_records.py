import pytest

from daal_mmdet.run_records import (
    append_record,
    first_of_other_settings,
    read_records,
)


def test_records_come_back_in_order(tmp_path):
    path = tmp_path / 'runs.jsonl'
    assert read_records(path) == []
    records = [{'a': 1, 'b': [0.5, None]}, {'a': 2}]
    for record in records:
        append_record(path, record)
    assert read_records(path) == records


def test_a_line_cut_short_is_lost_and_replaced(tmp_path):
    path = tmp_path / 'runs.jsonl'
    path.write_text('{"a": 1}\n{"a": 2, "b')
    assert read_records(path) == [{'a': 1}]
    append_record(path, {'a': 3})
    assert path.read_text() == '{"a": 1}\n{"a": 3}\n'


def test_a_whole_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / 'runs.jsonl'
    path.write_text('{"a": 1}')
    append_record(path, {'a': 2})
    assert read_records(path) == [{'a': 1}, {'a': 2}]


def test_a_record_that_is_there_is_not_added_again(tmp_path):
    path = tmp_path / 'runs.jsonl'
    for record in ({'a': 1, 'b': 1}, {'a': 1, 'b': 2}, {'a': 2}, {'a': 1, 'b': 2}):
        append_record(path, record, keys=['a'])
    assert read_records(path) == [{'a': 1, 'b': 1}, {'a': 2}]
    append_record(path, {'a': 1, 'b': 2}, keys=['a', 'b'])
    append_record(path, {'a': 2})
    assert read_records(path)[2:] == [{'a': 1, 'b': 2}, {'a': 2}]


def test_damage_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / 'runs.jsonl'
    path.write_text('{"a": 1}\n{"b"\n{"c": 2}\n')
    with pytest.raises(ValueError, match=r"line 2 is no JSON: '\{\"b\"'"):
        read_records(path)


def test_what_json_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match='not JSON compliant'):
        append_record(tmp_path / 'runs.jsonl', {'a': float('nan')})
    assert read_records(tmp_path / 'runs.jsonl') == []


def test_the_first_record_of_other_settings_is_found():
    records = [
        {'loss': 'a', 'seed': 0, 'config': 'x'},
        {'loss': 'b', 'seed': 0, 'config': 'y'},
        {'loss': 'b', 'seed': 1, 'config': 'y'},
    ]
    assert first_of_other_settings(records, ('loss',)) is None
    assert first_of_other_settings([{'loss': 'a'}] * 2, ('loss',)) is None
    other = {'loss': 'a', 'seed': 1}
    assert first_of_other_settings([*records, other], ('loss',)) is other
