"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ['markdown_table']


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], labels: int = 1
) -> str:
    """Lines of a table; all columns but the first ``labels`` are aligned right."""
    rule = '|---' * labels + '|---:' * (len(heads) - labels) + '|'
    first, *others = (f'| {" | ".join(cells)} |' for cells in (heads, *rows))
    return '\n'.join([first, rule, *others])
