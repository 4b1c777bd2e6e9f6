"""The Markdown page of which detectors work."""

from __future__ import annotations

from collections.abc import Sequence

import mmdet
import mmengine
import torch

from daal_mmdet.compatibility.model_check import CheckResult
from daal_mmdet.markdown_table import markdown_table

__all__ = ['compatibility_page', 'count_families', 'versions']

_TEXT = """
Each config that mmdet ships is given the losses of this package, with BNM
(`bnm_weight=0.05`), and trained for three iterations on random images: with boxes,
without any, and with boxes in a late epoch. It
*works* if every loss is finite, the logits and the head get a gradient that is not
zero, and the filters of every `DAALLoss` that was trained have moved. Weights are not
loaded, images are small, queries and samples few; what a single process on a CPU can't
run is replaced by a plain layer (batch norm over several GPUs, CARAFE, torchvision's
RoIAlign); a tracker is checked by its detector, a semi-supervised model by its student.
mmdet's PAA and LAD need scikit-learn (`pip install -e '.[compatibility]'`).
[detectors.md](detectors.md) tells what to write for each kind of head, what the modes
mean, and what is refused.
"""
_COLUMNS = ('family', 'config', 'head', 'mode', 'DAALLoss', 'box loss', 'remark')


def versions() -> str:
    """What the installed packages are."""
    return (
        f'mmdet {mmdet.__version__}, mmengine {mmengine.__version__}, '
        f'PyTorch {torch.__version__}'
    )


def count_families(results: Sequence[CheckResult]) -> tuple[int, int]:
    """Families that work, and all that have a classification loss in their config.

    A family works if one of its configs does. Those that could not be checked do not
    count.
    """
    checked = [r for r in results if r.configured and r.status != 'not checked']
    works = {_family(r) for r in checked if r.status == 'works'}
    return len(works), len({_family(r) for r in checked})


def compatibility_page(
    results: Sequence[CheckResult],
    command: str,
    made_with: str,
    left_out: Sequence[str] = (),
) -> str:
    """Write the page.

    Args:
        results: In the order of the rows.
        command: Command that made them.
        made_with: Versions of the packages.
        left_out: Families of mmdet that were not looked at.
    """
    works, families = count_families(results)
    share = f'{works / families:.0%}' if families else 'none'
    seen = {_family(r) for r in results if r.status != 'not checked'}
    unseen = sorted({_family(result) for result in results} - seen)
    rows: dict[tuple[str, str], list[str]] = {}
    for result in results:
        # Configs of a family that could not be checked for the same reason are one row.
        unchecked = result.status == 'not checked'
        key = (_family(result), result.reason if unchecked else result.config)
        rows.setdefault(key, _row(result))
    return '\n'.join(
        [
            '# Which detectors work',
            '',
            _TEXT.strip(),
            '',
            '## The table',
            '',
            '```shell',
            command,
            '```',
            '',
            f'{made_with}. **{works} of {families} families ({share}) that take a '
            'classification loss from their config and could be checked work.** Could '
            f'not be checked: {", ".join(unseen) or "none"}.',
            '',
            markdown_table(_COLUMNS, rows.values(), labels=len(_COLUMNS)),
            '',
            *(['Not looked at: ' + ', '.join(left_out) + '.', ''] if left_out else []),
        ]
    )


def _family(result: CheckResult) -> str:
    return result.config.split('/')[0]


def _row(result: CheckResult) -> list[str]:
    family, _, name = result.config.partition('/')
    return [
        family,
        name.removesuffix('.py'),
        ', '.join(result.heads),
        '; '.join(result.modes),
        result.status,
        result.box,
        result.reason,
    ]
