"""Which versions will do, which steps are missing."""

from pathlib import Path

import pytest

from environment import decisions

ROOT = Path(__file__).resolve().parents[3]
HOME = 'file:///checkout'
VERSIONS = {
    'pip': '24.0',
    'numpy': '2.2.6',
    'cv2': '4.12.0.88',
    'torch': '2.13.0+cpu',
    'mmcv': '2.3.6',
    'mmengine': '0.10.12',
    'mmdet': '3.5.1',
}
STAMP = {'inputs': 'abc', 'versions': VERSIONS}


def found(**changes):
    """What the probe finds in a complete environment, but for the changes."""
    versions = {**VERSIONS, **{k: v for k, v in changes.items() if k in VERSIONS}}
    rest = {k: v for k, v in changes.items() if k not in VERSIONS}
    return {'versions': versions, 'unmet': [], 'home': HOME, **rest}


@pytest.mark.parametrize(
    ('version', 'numbers'),
    [('2.13.0+cpu', (2, 13, 0)), ('2.14.0a0+git1', (2, 14, 0)), ('12.8', (12, 8))],
)
def test_release(version, numbers):
    assert decisions.release(version) == numbers


def test_release_rejects_words():
    with pytest.raises(ValueError, match="'newest' is not a version such as '2.13.0'"):
        decisions.release('newest')


@pytest.mark.parametrize(
    ('has', 'wanted', 'proven', 'does'),
    [
        (None, None, None, False),
        ('2.3.1', None, None, False),
        ('2.4.0', None, None, True),
        ('2.13.1+cu130', None, None, True),
        ('2.14.0', None, None, False),
        ('2.14.0', None, '2.14.0', True),
        ('2.14.0', None, '2.13.0', False),
        ('2.13.0+cpu', '2.13.0', None, True),
        ('2.13.0+cpu', '2.13.0+cpu', None, True),
        ('2.13.0+cpu', '2.13.0+cu130', None, False),
        ('2.13.0+cpu', '2.12.0', '2.13.0+cpu', False),
        ('2.13.0', '2.1', None, False),
        # To pip these are the same.
        ('2.13.0+cpu', '2.13', None, True),
        ('2.13', '2.13.0', None, True),
        ('2.13.0rc1', '2.13', None, False),
        ('2.10.0', '2.1', None, False),
        ('2.13.0+cpu', '2.13+cpu', None, True),
    ],
)
def test_torch_satisfies(has, wanted, proven, does):
    assert decisions.torch_satisfies(has, wanted, proven) is does


@pytest.mark.parametrize(
    ('has', 'does'), [(None, False), ('1.7.2', False), ('2.0.0rc4', True)]
)
def test_mmcv_satisfies(has, does):
    assert decisions.mmcv_satisfies(has) is does


def test_nothing_to_do_in_a_complete_environment():
    assert decisions.missing_steps(found(), STAMP, 'abc', HOME) == []


@pytest.mark.parametrize(
    ('has', 'stamp', 'options', 'steps'),
    [
        (None, {}, {}, ['venv', 'torch', 'mmcv', 'packages', 'check']),
        (None, STAMP, {}, ['venv', 'torch', 'mmcv', 'packages', 'check']),
        (found(pip=None), STAMP, {}, ['venv', 'check']),
        (found(torch=None), STAMP, {}, ['torch', 'check']),
        (found(torch='2.3.0'), STAMP, {}, ['torch', 'check']),
        (found(torch='2.12.0'), STAMP, {}, ['check']),
        (found(), STAMP, {'torch': '2.12.0'}, ['torch', 'check']),
        (found(mmcv=None), STAMP, {}, ['mmcv', 'packages', 'check']),
        (found(), STAMP, {'rebuild_mmcv': True}, ['mmcv', 'packages', 'check']),
        (found(mmengine=None), STAMP, {}, ['packages', 'check']),
        (found(mmdet=None), STAMP, {}, ['packages', 'check']),
        (found(unmet=['ruff>=0.9']), STAMP, {}, ['packages', 'check']),
        (found(home='file:///elsewhere'), STAMP, {}, ['packages', 'check']),
        (found(home=None), STAMP, {}, ['packages', 'check']),
        (found(numpy='2.5.0'), STAMP, {}, ['check']),
        (found(), {}, {}, ['packages', 'check']),
        (found(), {**STAMP, 'inputs': 'old'}, {}, ['packages', 'check']),
    ],
)
def test_missing_steps(has, stamp, options, steps):
    assert decisions.missing_steps(has, stamp, 'abc', HOME, **options) == steps


def test_inputs_hash_follows_each_input(tmp_path):
    for name in decisions.INPUTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    seen = {decisions.inputs_hash(tmp_path)}
    assert seen == {decisions.inputs_hash(ROOT)}
    for name in decisions.INPUTS:
        (tmp_path / name).write_text('changed')
        seen.add(decisions.inputs_hash(tmp_path))
    assert len(seen) == 1 + len(decisions.INPUTS)


@pytest.mark.parametrize(
    ('gpu', 'cuda', 'nvcc', 'does'),
    [
        (True, '13.0', '13.0', True),
        (True, '12.8', '12.1', True),
        (True, '13.0', '12.8', False),
        (True, '13.0', None, False),
        (False, '13.0', '13.0', False),
        (True, None, '13.0', False),
    ],
)
def test_can_compile_cuda(gpu, cuda, nvcc, does):
    facts = {'gpu': gpu, 'cuda': cuda, 'nvcc': nvcc}
    assert decisions.can_compile_cuda(facts) is does
