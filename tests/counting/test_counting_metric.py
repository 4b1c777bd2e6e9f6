import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import METRICS

from daal_mmdet.counting import count_errors
from tests import oracles

counts = st.tuples(st.floats(-100, 1e5), st.integers(0, 10**5))


@given(st.lists(counts, min_size=1, max_size=20))
def test_errors_match_the_oracle(pairs):
    predicted, truth = zip(*pairs, strict=True)
    found = count_errors(np.array(predicted), np.array(truth))
    assert found == pytest.approx(oracles.count_errors(predicted, truth))


def test_errors_by_hand():
    found = count_errors([13.0, 6.0], [10, 10])
    assert found == {'MAE': 3.5, 'RMSE': pytest.approx(12.5**0.5), 'bias': -0.5}


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r'expected shape \(N,\) as truth \(3,\), got'):
        count_errors(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match='predicted: expected images, got none'):
        count_errors(np.zeros(0), np.zeros(0))


def samples(values):
    return [
        dict(img_id=name, gt_count=truth, pred_count=torch.tensor(found))
        for name, truth, found in values
    ]


def test_metric_over_batches_with_its_table(tmp_path):
    path = tmp_path / 'new' / 'table.csv'
    metric = METRICS.build(dict(type='CountingMetric', table_file=str(path)))
    metric.process(None, samples([('a', 10, 13.0), ('b', 10, 6.0)]))
    metric.process(None, samples([('c', 0, 0.25)]))
    metrics = metric.evaluate(size=3)
    assert metrics['count/MAE'] == pytest.approx(7.25 / 3)
    assert metrics['count/RMSE'] == pytest.approx(((9 + 16 + 0.0625) / 3) ** 0.5)
    assert metrics['count/bias'] == pytest.approx(-0.25)
    with path.open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ['image', 'truth', 'predicted', 'error'],
        ['a', '10', '13.00', '+3.00'],
        ['b', '10', '6.00', '-4.00'],
        ['c', '0', '0.25', '+0.25'],
    ]


def test_without_a_table_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metric = METRICS.build(dict(type='CountingMetric', prefix='part_b'))
    metric.process(None, samples([('a', 2, 1.0)]))
    assert metric.evaluate(size=1)['part_b/MAE'] == 1
    assert not list(tmp_path.iterdir())
