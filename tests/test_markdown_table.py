from daal_mmdet.markdown_table import markdown_table


def test_columns_of_numbers_are_aligned_right():
    assert markdown_table(['a', 'b', 'c'], [['x', 'y', '1'], ['z', '', '2']], 2) == (
        '| a | b | c |\n|---|---|---:|\n| x | y | 1 |\n| z |  | 2 |'
    )
    assert markdown_table(['a|b', 'c'], [['x | y', '1']]).splitlines() == [
        r'| a\|b | c |',
        '|---|---:|',
        r'| x \| y | 1 |',
    ]
    assert markdown_table(['a', 'b'], []) == '| a | b |\n|---|---:|'
