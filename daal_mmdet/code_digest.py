"""A name for what a module of this package does."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import daal_mmdet

__all__ = ['code_digest', 'source_digest']

_PACKAGE = Path(daal_mmdet.__file__).parent


@cache
def code_digest(module: str) -> str:
    """Hash of a module's code and of that of this package which it imports.

    Comments, docstrings and layout do not count.

    Args:
        module: Its full name, ``daal_mmdet.losses.daal_loss``.

    Returns:
        16 hexadecimal digits.
    """
    waiting, seen = [module], {}
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in seen or path is None:
            continue
        tree = ast.parse(path.read_text(encoding='utf-8'))
        waiting += _imports(tree, name, path)
        seen[name] = source_digest(tree)
    text = repr(sorted(seen.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_digest(tree: ast.Module) -> str:
    """Hash of a parsed file without its docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, 'body', None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:]
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()


def _plain(node: object) -> object:
    """A parsed file as tuples, the same by every version of Python.

    ``ast.dump`` shows fields that are empty in some versions, and newer versions have
    more of them, such as ``type_params``.
    """
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node))
        kept = (field for field in fields if field[1] not in (None, ()))
        return type(node).__name__, *kept
    return tuple(map(_plain, node)) if isinstance(node, list) else node


def _file_of(module: str) -> Path | None:
    top, *rest = module.split('.')
    if top != _PACKAGE.name:
        return None
    path = _PACKAGE.joinpath(*rest)
    for file in (path.with_suffix('.py'), path / '__init__.py'):
        # The package's own __init__ only gathers.
        if rest and file.is_file():
            return file
    return None


def _imports(tree: ast.Module, module: str, path: Path) -> Iterator[str]:
    package = module if path.name == '__init__.py' else module.rpartition('.')[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                above = package.split('.')[: len(package.split('.')) - node.level + 1]
                base = '.'.join([*above, *([base] if base else [])])
            yield base
            yield from (f'{base}.{alias.name}' for alias in node.names)
