"""A look at the annotation files of a training before it starts."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import print_log

from daal_mmdet.datasets.annotation_file import (
    Cleaning,
    clean_annotations,
    read_annotations,
)
from daal_mmdet.datasets.subset_file import write_json

__all__ = ['check_data']

# mmdet's evaluation takes these as they are.
_HARMLESS_IN_VALIDATION = {'boxes without area', 'boxes outside their image'}
_WARNING = 30


def check_data(config: Config) -> None:
    """Look for what would stop a training, or spoil it, in its annotation files.

    mmdet passes over some defects of a file without a word, trains on others (a box of
    infinite width makes the loss NaN) and stops at others, sometimes hours later (an
    image that is not there). Here every defect of the *training* file is counted and
    told, and if there are any, a copy without them is written to
    ``<work_dir>/annotations`` and trained on. A *validation* file is not changed, since
    that would change what is measured: defects that break the evaluation end the
    program.

    Looked at are COCO and LVIS files on local disks; data sets of other kinds, and
    lists of data sets, are left alone. Every process does the same, and only the first
    tells it.

    Args:
        config: Config of the run; ``ann_file`` of its training data set is changed if
            a clean copy was written.

    Raises:
        SystemExit: If a file is none, nothing is left of it, or a validation file is
            broken; the message names the file and the defects.
    """
    for loader in ('train', 'val'):
        dataset = _coco_dataset(config, f'{loader}_dataloader')
        if dataset is None:
            continue
        source = Path(dataset.get('data_root') or '', dataset['ann_file'])
        key = f'{loader}_dataloader.dataset.ann_file'
        try:
            cleaned, cleaning = clean_annotations(
                read_annotations(source), _image_finder(dataset)
            )
        except (OSError, ValueError) as error:
            raise SystemExit(f'{key}: {error}') from error
        if loader == 'val':
            _check_validation(key, source, cleaning)
        elif cleaning.counts:
            target = Path(config.work_dir).resolve() / 'annotations' / source.name
            if not cleaned['annotations']:
                _tell(source, cleaning)
                raise SystemExit(f'{key}: nothing is left of {source}')
            write_json(target, cleaned)
            _tell(source, cleaning)
            _print(f'{key}: training on {target}, which is without them')
            dataset['ann_file'] = str(target)


def _coco_dataset(config: Config, loader: str) -> dict | None:
    """The innermost data set of a loader, if it reads a local COCO or LVIS file."""
    dataset = (config.get(loader) or {}).get('dataset', {})
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    ann_file = dataset.get('ann_file')
    kind = dataset.get('type')
    if isinstance(kind, str):
        kind = DATASETS.get(kind)
    if not (inspect.isclass(kind) and issubclass(kind, CocoDataset)):
        return None
    remote = any('://' in str(dataset.get(key)) for key in ('data_root', 'ann_file'))
    if remote or not isinstance(ann_file, str) or dataset.get('backend_args'):
        return None
    return dataset


def _image_finder(dataset: dict):
    prefix = (dataset.get('data_prefix') or {}).get('img') or ''
    folder = os.path.join(dataset.get('data_root') or '', prefix)
    return lambda name: os.path.isfile(os.path.join(folder, name))


def _check_validation(key: str, source: Path, cleaning: Cleaning) -> None:
    if set(cleaning.counts) <= _HARMLESS_IN_VALIDATION:
        if cleaning.counts:
            _print(
                f'{key}: {source} holds '
                + ', '.join(f'{n} {kind}' for kind, n in cleaning.counts.items())
                + ', which the evaluation counts as it finds them'
            )
        return
    raise SystemExit(
        f"{key}: {source} can't be evaluated on:\n  "
        + '\n  '.join(line.replace('left out: ', '') for line in cleaning.lines())
        + '\ntools/make_subset.py writes a copy without them'
    )


def _tell(source: Path, cleaning: Cleaning) -> None:
    for line in cleaning.lines():
        _print(f'{source}: {line}')


def _print(message: str) -> None:
    if int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))) == 0:
        print_log(message, level=_WARNING)
