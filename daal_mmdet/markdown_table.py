"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ['markdown_table']


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], labels: int = 1
) -> str:
    """Lines of a table; all columns but the first ``labels`` are aligned right."""
    rule = '|---' * labels + '|---:' * (len(heads) - labels) + '|'
    # A bar in a name would begin a cell.
    lines = [[cell.replace('|', r'\|') for cell in cells] for cells in (heads, *rows)]
    first, *others = (f'| {" | ".join(cells)} |' for cells in lines)
    return '\n'.join([first, rule, *others])
