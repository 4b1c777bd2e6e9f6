import ast

import pytest

from daal_mmdet import code_digest as module


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules in place of this one."""
    folder = tmp_path / 'daal_mmdet'
    (folder / 'losses').mkdir(parents=True)
    (folder / 'losses' / 'a.py').write_text('"""A."""\nfrom .b import x\n')
    (folder / 'losses' / 'b.py').write_text('x = 1\n')
    (folder / 'other.py').write_text('y = 1\n')
    monkeypatch.setattr(module, '_PACKAGE', folder)
    yield folder
    module.code_digest.cache_clear()


def digest():
    module.code_digest.cache_clear()
    return module.code_digest('daal_mmdet.losses.a')


@pytest.mark.parametrize(
    'imported',
    [
        'from .b import x',
        'from . import b',
        'import daal_mmdet.losses.b as b',
        'from daal_mmdet.losses.b import x',
    ],
)
def test_code_of_a_module_is_its_own_and_what_it_imports(package, imported):
    a, b = package / 'losses' / 'a.py', package / 'losses' / 'b.py'
    a.write_text(f'"""A."""\n{imported}\n')
    before = digest()
    a.write_text(f'"""Other words."""\n\n# A comment.\n{imported}\n')
    (package / 'other.py').write_text('y = 2\n')
    assert digest() == before
    b.write_text('x = 2\n')
    assert digest() != before


def test_versions_of_python_agree(monkeypatch):
    """From 3.12 on a function has ``type_params``, as a rule none."""
    text = 'def f(x, y=None):\n    return [x, y, None, 0.5, ()]'
    before = module.source_digest(ast.parse(text))
    fields = [name for name in ast.FunctionDef._fields if name != 'type_params']
    monkeypatch.setattr(ast.FunctionDef, '_fields', (*fields, 'type_params'))
    tree = ast.parse(text)
    tree.body[0].type_params = []
    assert module.source_digest(tree) == before
    tree.body[0].type_params = [ast.Name('T', ast.Load())]
    assert module.source_digest(tree) != before


def test_docstrings_of_functions_do_not_count():
    one, other = (
        module.source_digest(ast.parse(f'def f():\n    "{text}"\n    return {value}'))
        for text, value in (('a', 1), ('b', 1))
    )
    assert one == other
    changed = module.source_digest(ast.parse('def f():\n    "a"\n    return 2'))
    assert changed != one
