"""Classes of a checkpoint against those of the data it is tested on."""

from types import SimpleNamespace

import pytest
import torch.nn as nn

from daal_mmdet.hooks.trained_classes_hook import TrainedClassesHook


def told(meta, tested, model=None):
    """What is told of a checkpoint with this meta on data with this metainfo."""
    lines = []
    dataset = SimpleNamespace(metainfo=tested)
    runner = SimpleNamespace(
        model=model or nn.Linear(1, 1),
        test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)),
        logger=SimpleNamespace(warning=lines.append),
        cfg=SimpleNamespace(load_from='a.pth'),
    )
    TrainedClassesHook().after_load_checkpoint(runner, {'meta': meta})
    return lines


@pytest.mark.parametrize(
    'meta',
    [
        {'dataset_meta': {'classes': ('cat', 'dog', 'cow')}},
        {'CLASSES': ('cat', 'dog', 'cow')},
    ],
)
def test_other_classes_under_a_number_are_told(meta):
    (line,) = told(meta, {'classes': ['cat', 'cow', 'dog']})
    assert line == (
        "a.pth was trained with 'dog' as class number 1, and test_dataloader.dataset "
        "has 'cow' there: AP is that of wrong labels, unless these are two names of "
        'one class'
    )


@pytest.mark.parametrize('tested', [('cat', 'dog'), ('cat',), ('cat', 'dog', 'cow')])
def test_the_same_numbers_are_not(tested):
    assert not told({'dataset_meta': {'classes': ('cat', 'dog')}}, {'classes': tested})


@pytest.mark.parametrize('meta', [None, {}, {'dataset_meta': None}, {'epoch': 3}])
def test_what_has_no_names_is_not(meta):
    assert not told(meta, {'classes': ('cat', 'dog')})
    assert not told({'CLASSES': ('cat', 'dog')}, {})


def test_models_of_words_are_not():
    meta = {'dataset_meta': {'classes': ('person', 'car')}}
    detector = nn.ModuleDict({'language_model': nn.Linear(1, 1)})
    for model in (detector, nn.ModuleDict({'module': detector})):
        assert not told(meta, {'classes': ('hat', 'shoe')}, model)
    assert told(meta, {'classes': ('hat', 'shoe')})
