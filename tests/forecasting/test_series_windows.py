import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS

from daal_mmdet.forecasting.series_windows import SPLITS, SeriesWindows


def counting(length=100, channels=1):
    """Values that tell their time: t, and 1000 + 2 t for the second column."""
    t = np.arange(length, dtype=np.float64)
    return np.stack([1000 * c + (c + 1) * t for c in range(channels)], 1)


def times(dataset, values):
    """The times of standardised values of a counting series."""
    meta = dataset.metainfo
    values = values.double().numpy() * meta['std'] + meta['mean']
    return np.round(values[:, 0]).astype(int)


def windows(dataset):
    for i in range(len(dataset)):
        item = dataset[i]
        sample = item['data_samples']
        yield (
            times(dataset, item['inputs']),
            times(dataset, sample.target),
            sample.first_target,
        )


BOUNDS = {'train': (0, 60), 'val': (60, 80), 'test': (80, 100)}


@pytest.mark.parametrize('split', SPLITS)
def test_evaluation_targets_cover_their_part_and_nothing_else(split):
    dataset = SeriesWindows(
        counting(), split=split, context=12, horizon=5, test_mode=True
    )
    begin, end = BOUNDS[split]
    begin = max(begin, 12)
    assert len(dataset) == end - begin - 5 + 1
    for i, (inputs, target, first) in enumerate(windows(dataset)):
        assert first == begin + i
        np.testing.assert_array_equal(inputs, np.arange(first - 12, first))
        np.testing.assert_array_equal(target, np.arange(first, first + 5))
    assert target[-1] == end - 1


@pytest.mark.parametrize('split', SPLITS)
def test_training_targets_are_the_next_values_within_their_part(split):
    dataset = SeriesWindows(counting(), split=split, context=12)
    begin, end = BOUNDS[split]
    begin = max(begin, 1)
    assert len(dataset) == end - begin - 12 + 1
    for i, (inputs, target, first) in enumerate(windows(dataset)):
        assert first == begin + i
        np.testing.assert_array_equal(inputs, np.arange(first - 1, first + 11))
        np.testing.assert_array_equal(target, inputs + 1)
    assert target[-1] == end - 1


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(60, 120),
    context=st.integers(1, 8),
    horizon=st.integers(1, 6),
    cuts=st.tuples(st.integers(2, 4), st.integers(2, 4), st.integers(2, 4)),
)
def test_targets_of_the_parts_never_meet(length, context, horizon, cuts):
    fractions = tuple(cut / sum(cuts) for cut in cuts)
    seen = {}
    for split in SPLITS:
        dataset = SeriesWindows(
            counting(length),
            split=split,
            fractions=fractions,
            context=context,
            horizon=horizon,
            test_mode=split != 'train',
        )
        targets = [set(target.tolist()) for _, target, _ in windows(dataset)]
        seen[split] = set().union(*targets)
    assert max(seen['train']) < min(seen['val']) <= max(seen['val']) < min(seen['test'])


def test_statistics_come_from_the_train_part_alone():
    rng = np.random.default_rng(0)
    series = rng.normal(3, 2, (100, 2))
    changed = series.copy()
    changed[60:] = 1e6 * rng.normal(size=(40, 2))
    first, second = SeriesWindows(series), SeriesWindows(changed)
    assert first.metainfo == second.metainfo
    for i in range(len(first)):
        assert torch.equal(first[i]['inputs'], second[i]['inputs'])
        assert torch.equal(
            first[i]['data_samples'].target, second[i]['data_samples'].target
        )
    meta = first.metainfo
    np.testing.assert_allclose(meta['mean'], series[:60].mean(0))
    np.testing.assert_allclose(meta['std'], series[:60].std(0))
    naive = np.abs(np.diff(series[:60], axis=0)).mean(0)
    np.testing.assert_allclose(meta['naive_scale'], naive)


def test_all_columns_are_windowed_alike():
    dataset = SeriesWindows(counting(channels=2), context=7)
    item = dataset[3]
    assert item['inputs'].shape == (7, 2)
    assert item['inputs'].dtype == torch.float32
    torch.testing.assert_close(item['inputs'][:, 0], item['inputs'][:, 1])


def test_noise_is_on_training_targets_only_and_stays_with_its_value():
    options = dict(series=np.random.default_rng(0).normal(size=200), context=20)
    clean = SeriesWindows(**options)
    noisy = SeriesWindows(**options, target_noise=dict(std=0.5, seed=3))
    by_time = {}
    for i in range(len(clean)):
        assert torch.equal(clean[i]['inputs'], noisy[i]['inputs'])
        sample = noisy[i]['data_samples']
        noise = sample.target - clean[i]['data_samples'].target
        for t, value in enumerate(noise.flatten().tolist(), sample.first_target):
            np.testing.assert_allclose(by_time.setdefault(t, value), value, atol=1e-6)
    values = np.array(list(by_time.values()))
    assert abs(values.std() - 0.5) < 0.08
    again = SeriesWindows(**options, target_noise=dict(std=0.5, seed=3))
    other = SeriesWindows(**options, target_noise=dict(std=0.5, seed=4))
    assert torch.equal(again[0]['data_samples'].target, noisy[0]['data_samples'].target)
    assert not torch.equal(
        other[0]['data_samples'].target, noisy[0]['data_samples'].target
    )


def test_a_fraction_of_the_targets_can_be_noisy():
    series = np.random.default_rng(0).normal(size=3000)
    options = dict(series=series, context=1700)
    noisy = SeriesWindows(**options, target_noise=dict(std=3.0, fraction=0.1))
    difference = (
        noisy[0]['data_samples'].target
        - SeriesWindows(**options)[0]['data_samples'].target
    )
    assert abs((difference != 0).double().mean() - 0.1) < 0.03
    assert abs(difference[difference != 0].std() - 3) < 0.5


def test_a_file_without_values_is_named(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text('a,b\n')
    with pytest.raises(ValueError, match='the train part has 0 of 0 steps, too few'):
        SeriesWindows(path)


def test_it_builds_from_a_config():
    dataset = DATASETS.build(
        dict(type='SeriesWindows', series=counting().tolist(), context=5)
    )
    assert len(dataset) == 55
    with pytest.raises(IndexError, match='index 55 of 55 windows'):
        dataset[55]
    assert dataset[-1]['data_samples'].first_target == 55


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(split='dev'), ValueError, "split: expected one of .*, got 'dev'"),
        (dict(context=0), ValueError, 'context: expected a value >= 1, got 0'),
        (dict(horizon=1.5), TypeError, 'horizon: expected an integer, got 1.5'),
        (dict(test_mode=1), TypeError, 'test_mode: expected True or False, got 1'),
        (
            dict(fractions=(0.5, 0.5)),
            ValueError,
            r'fractions: expected three numbers of sum 1, got \(0.5, 0.5\)',
        ),
        (
            dict(fractions=(0.5, 0.6, -0.1)),
            ValueError,
            'fractions: expected a value > 0, got -0.1',
        ),
        (
            dict(context=60),
            ValueError,
            'the train part has 60 of 100 steps, too few for one window of context=60',
        ),
        (
            dict(split='test', horizon=21, test_mode=True, context=3),
            ValueError,
            'the test part has 20 of 100 steps, too few .* horizon=21',
        ),
        (
            dict(test_mode=True, target_noise=dict(std=1.0)),
            ValueError,
            'target_noise: expected None with test_mode=True',
        ),
        (dict(target_noise=dict(std=0)), ValueError, 'target_noise.std: .* > 0, got 0'),
        (
            dict(target_noise=dict(std=1, share=0.1)),
            TypeError,
            "target_noise: expected a dict of std, .*, got {'std': 1, 'share': 0.1}",
        ),
        (dict(target_noise=dict(seed=1)), TypeError, 'target_noise: expected a dict'),
        (dict(target_noise=0.5), TypeError, 'target_noise: expected .*, got 0.5'),
        (
            dict(target_noise=dict(std=1, fraction=2)),
            ValueError,
            'target_noise.fraction: expected a value .*<= 1.*, got 2',
        ),
        (dict(naive_lag=60), ValueError, 'naive_lag: .* 60 steps .*, got 60'),
        (
            # Its standard deviation is not 0: the sum of 60 values 0.1 is rounded.
            dict(series=np.full(100, 0.1)),
            ValueError,
            "column '0' is constant in the train part",
        ),
        (
            dict(series=[1.0, 2.0]),
            ValueError,
            'the train part has 1 of 2 steps, too few for one window of context=33',
        ),
        (
            dict(series=np.arange(100) % 5, naive_lag=5),
            ValueError,
            "naive_lag: column '0' repeats itself exactly after 5 steps",
        ),
        (
            dict(series=np.where(np.arange(100) == 70, np.nan, 1.0)),
            ValueError,
            "1 values are not finite, the first in row 70 of column '0'",
        ),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        SeriesWindows(**{'series': counting(), **options})
