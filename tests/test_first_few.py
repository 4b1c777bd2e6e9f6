from daal_mmdet.first_few import first_few


def test_names_beyond_the_first_are_counted():
    assert first_few(['a', 'b', 'c', 'd', 'e']) == 'a, b, c and 2 more'
    assert first_few(['a', 'b', 'c']) == 'a, b, c'
    assert first_few(['a', 'b', 'c'], most=2, separator='; ') == 'a; b and 1 more'
    assert first_few([]) == ''
