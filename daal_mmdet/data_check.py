"""A look at the annotation files of a training before it starts."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mmdet.datasets import CocoDataset, LVISDataset, LVISV1Dataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.logging import print_log

from daal_mmdet.datasets.annotation_file import (
    HARMLESS,
    PASSED_OVER,
    WITHOUT_MASK,
    Cleaning,
    clean_annotations,
    read_annotations,
    repeated_names,
)
from daal_mmdet.evaluation.annotation_ids import ids_count
from daal_mmdet.evaluation.few_class_coco_metric import FewClassCocoMetric
from daal_mmdet.evaluation.few_class_lvis_metric import FewClassLVISMetric
from daal_mmdet.first_few import first_few
from daal_mmdet.placed_dicts import (
    bare_type,
    built_class,
    placed_dicts,
    placed_metrics,
)
from daal_mmdet.whole_file import write_whole

__all__ = [
    'check_data',
    'innermost_dataset',
    'local_dataset',
    'local_files_of_metrics',
    'require_sound_data',
    'tell_wrong_names',
]

_LOADERS = ('train', 'val', 'test')
# Metrics that do not mind the ids of annotations.
_NUMBER_ANEW = (FewClassCocoMetric, FewClassLVISMetric)


def check_data(config: Config) -> None:
    """Look for what would stop a training, or spoil it, in its annotation files.

    mmdet passes over some defects of a file without a word, trains on others (a box of
    infinite width makes the loss NaN) and stops at others, sometimes hours later (an
    image that is not there). Here every defect of the *training* file is counted and
    told, and if there are any, a copy without them is written to
    ``<work_dir>/annotations`` and trained on. A *validation* file is not changed, since
    that would change what is measured: defects that break the evaluation end the
    program.

    mmdet numbers the classes in the order of a file's categories. Where the two files
    do not number alike, the detector would be judged by other labels than it learned:
    that ends the program too, as does a metric whose own file numbers otherwise, and
    two categories of one name, from which on all labels would be one too high. Boxes
    that mmdet passes over or nothing is learned from (of a category that the data set
    does not name, marked ``ignore``, below a pixel, crowds) are counted, and a data set
    that names its classes in another order than its file is told, as pictures take
    their names from it. A head of fewer classes than the data set has would train
    objects of the last ones as background, in silence: that ends the program; a head of
    more classes is told.

    Looked at are COCO and LVIS files on local disks; data sets of other kinds, panoptic
    ones among them, and lists of data sets, are left alone. Every process does the
    same, and only the first tells it.

    Args:
        config: Config of the run; ``ann_file`` of its training data set is changed if
            a clean copy was written.

    Raises:
        SystemExit: If a file is none, nothing is left of it, category names repeat, a
            validation file is broken, the two number their classes differently, or a
            head has too few classes; the message names the file or the key and the
            defects.
    """
    _check(config, ('train', 'val'), mend=True)


def require_sound_data(configs: Iterable[Config]) -> None:
    """Look at the annotation files of several trainings, and change none.

    As :func:`check_data`, with two differences: a training file with defects that mmdet
    does not pass over ends the program, as a validation file does, and the test data
    are looked at like those for validation. Configs of the same data and numbers of
    classes are looked at once.

    Args:
        configs: Configs of the runs; stay as they are.

    Raises:
        SystemExit: As for :func:`check_data`.
    """
    seen = set()
    for config in configs:
        parts = [config.get(f'{loader}_dataloader') for loader in _LOADERS]
        parts.append(list(_classes_of_heads(config.get('model') or {})))
        if str(parts) not in seen:
            seen.add(str(parts))
            _check(config, _LOADERS, mend=False)


def tell_wrong_names(config: Config, loader: str) -> None:
    """Tell where labels of a loader's data set are called by another class's name.

    A detector that learned them in the order of the names, as one does whose training
    was not told of this, is then judged by other labels than it learned.

    Args:
        config: Config of the run.
        loader: ``'train'``, ``'val'`` or ``'test'``; its file is left alone if it is
            none that :func:`check_data` would look at, or has no annotations.
    """
    dataset = _coco_dataset(config, f'{loader}_dataloader')
    # No need to read a large file that has nothing to be compared with.
    if dataset is None or _class_names(dataset) is None:
        return
    source = _source(dataset)
    try:
        document = read_annotations(source)
    except (OSError, ValueError):
        # A file of images to send detections of is none; the runner says what else.
        return
    _compare_names(loader, source, dataset, _labels(dataset, document))


def _check(config: Config, loaders: Sequence[str], mend: bool) -> None:
    """Check the loaders' files, the training's first; see :func:`check_data`."""
    trained: tuple[str, list[str]] | None = None
    # An open vocabulary may be judged by other classes than it learned.
    words = _columns_are_words(config.get('model') or {})
    for loader in loaders:
        dataset = _coco_dataset(config, f'{loader}_dataloader')
        if dataset is None:
            continue
        source = _source(dataset)
        key = f'{loader}_dataloader.dataset.ann_file'
        try:
            cleaned, cleaning = clean_annotations(
                read_annotations(source),
                _image_finder(dataset),
                _needs_masks(config, loader),
            )
        except (OSError, ValueError) as error:
            raise SystemExit(f'{key}: {error}') from error
        _require_different_names(key, source, dataset, cleaned)
        names = _labels(dataset, cleaned)
        if loader == 'train' and mend:
            for line in cleaning.lines():
                _print(f'{source}: {line}')
        else:
            _require_whole(key, source, cleaning)
        _compare_names(loader, source, dataset, names)
        if loader != 'train':
            if names is not None:
                judged = (f'{loader}: {source}', names)
                if trained is not None and not words:
                    _require_same_labels(trained, judged)
                _check_metrics(config, loader, dataset, source, cleaned, judged)
            continue
        _require_boxes(key, source, dataset, cleaned)
        if names is not None:
            trained = (f'{loader}: {source}', names)
            _require_heads_for(config, names, _class_names(dataset) or names)
        if mend and cleaning.counts:
            target = Path(config.work_dir).resolve() / 'annotations' / source.name
            try:
                write_whole(target, json.dumps(cleaned))
            except OSError as error:
                raise SystemExit(f"{key}: can't write a clean copy: {error}") from error
            _print(f'{key}: training on {target}, a copy where that is mended')
            dataset['ann_file'] = str(target)


def innermost_dataset(config: Config, loader: str) -> dict:
    """The data set that a loader's wrappers hold; empty unless it is a single one."""
    dataset = config.get(loader)
    dataset = dataset.get('dataset') if isinstance(dataset, dict) else None
    while isinstance(dataset, dict) and 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset if isinstance(dataset, dict) else {}


def local_dataset(config: Config, loader: str) -> dict | None:
    """The innermost data set of a loader, if it reads what is on a local disk."""
    dataset = innermost_dataset(config, loader)
    remote = any('://' in str(dataset.get(key)) for key in ('data_root', 'ann_file'))
    return None if remote or dataset.get('backend_args') else dataset


def local_files_of_metrics(
    config: Config, part: str
) -> Iterator[tuple[str, str, dict]]:
    """Annotation files on local disks that the metrics of a loop read.

    Yields:
        The key, the file and the metric's config.
    """
    for place, metric in placed_metrics(config, part):
        for key in ('ann_file', 'train_ann_file'):
            path = metric.get(key)
            local = path and isinstance(path, str) and '://' not in path
            if local and not metric.get('backend_args'):
                yield f'{place}.{key}', path, metric


def _coco_dataset(config: Config, loader: str) -> dict | None:
    """The local data set of a loader, if its file is one of COCO or LVIS boxes."""
    dataset = local_dataset(config, loader)
    if dataset is None or not isinstance(dataset.get('ann_file'), str):
        return None
    kind = built_class(dataset, DATASETS)
    if not (inspect.isclass(kind) and issubclass(kind, CocoDataset)):
        return None
    # Panoptic files hold segments in place of boxes.
    same = kind.parse_data_info is CocoDataset.parse_data_info
    return dataset if same else None


def _source(dataset: dict) -> Path:
    return Path(dataset.get('data_root') or '', dataset['ann_file'])


def _image_finder(dataset: dict) -> Callable[[str], bool] | None:
    """Whether an image is there; None for data sets with file names of their own.

    Objects365 and LVIS v0.5 read others than their files give. Nor are images looked
    for that the pipeline reads from elsewhere, such as a data base.
    """
    loaders = (CocoDataset.load_data_list, LVISV1Dataset.load_data_list)
    if built_class(dataset, DATASETS).load_data_list not in loaders:
        return None
    steps = placed_dicts(dataset.get('pipeline'), 'pipeline')
    if any(step.get('backend_args') for _, step in steps):
        return None
    prefix = (dataset.get('data_prefix') or {}).get('img') or ''
    folder = os.path.join(dataset.get('data_root') or '', prefix)
    return lambda name: os.path.isfile(os.path.join(folder, name))


def _needs_masks(config: Config, loader: str) -> bool:
    """Whether a loader, or a metric of its loop, stops at an object without a mask."""
    steps = placed_dicts(config.get(f'{loader}_dataloader'), loader)
    metrics = placed_metrics(config, loader)
    return any(
        bare_type(step) == 'LoadAnnotations' and step.get('with_mask')
        for _, step in steps
    ) or any('segm' in (metric.get('metric') or ()) for _, metric in metrics)


def _require_whole(key: str, source: Path, cleaning: Cleaning) -> None:
    """Refuse what mmdet does not pass over."""
    if set(cleaning.counts) <= HARMLESS | PASSED_OVER:
        if cleaning.counts:
            _print(
                f'{key}: {source} holds '
                + ', '.join(f'{n} {kind}' for kind, n in cleaning.counts.items())
                + ', which mmdet takes as it finds them or passes over'
            )
        return
    raise SystemExit(
        f"{key}: {source} can't be used:\n  "
        + '\n  '.join(map(cleaning.describe, cleaning.counts))
        + '\ntools/make_subset.py writes a copy where that is mended'
        + (', but for masks' if WITHOUT_MASK in cleaning.counts else '')
    )


def _class_names(dataset: dict) -> list[str] | None:
    """Classes that the data set takes boxes of; None for all that the file has."""
    kind = built_class(dataset, DATASETS)
    if not _numbers_by_file(kind) or issubclass(kind, LVISDataset):
        return None
    classes = (dataset.get('metainfo') or {}).get('classes')
    classes = kind.METAINFO.get('classes') if classes is None else classes
    if isinstance(classes, str):
        # mmengine takes the name of a file, too.
        classes = list_from_file(classes) if os.path.isfile(classes) else [classes]
    return list(classes) if classes else None


def _numbers_by_file(kind: type) -> bool:
    """Whether labels follow the file's order; Objects365, say, sorts them by id."""
    loaders = [c.load_data_list for c in (CocoDataset, LVISDataset, LVISV1Dataset)]
    return kind.load_data_list in loaders


def _labels(dataset: dict, document: dict) -> list[str] | None:
    """Names of the classes in the order of mmdet's labels; None where unknown."""
    if not _numbers_by_file(built_class(dataset, DATASETS)):
        return None
    classes = _class_names(dataset)
    names = [category['name'] for category in document['categories']]
    return names if classes is None else [name for name in names if name in classes]


def _require_different_names(
    key: str, source: Path, dataset: dict, document: dict
) -> None:
    classes = _class_names(dataset)
    repeated = [
        name for name in repeated_names(document) if classes is None or name in classes
    ]
    if repeated:
        raise SystemExit(f'{key}: {source}: category names repeat: {_some(repeated)}')


def _compare_names(
    loader: str, source: Path, dataset: dict, names: list[str] | None
) -> None:
    pairs = zip(names or [], _class_names(dataset) or [], strict=False)
    for label, (name, called) in enumerate(pairs):
        if name != called:
            _print(
                f'{loader}_dataloader.dataset.metainfo.classes: number {label} is '
                f'{called!r} there and {name!r} in {source}, from which mmdet numbers '
                'the classes. Pictures and DetInferencer show wrong names, and AP is '
                'of the right labels only if all files have that order; write the '
                'names in the order of the files'
            )
            return


def _require_boxes(key: str, source: Path, dataset: dict, document: dict) -> None:
    """Count the boxes that are trained on and those that mmdet passes over."""
    classes = _class_names(dataset)
    name_of = {c['id']: c['name'] for c in document['categories']}
    counts: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for annotation in document['annotations']:
        if annotation.get('ignore'):
            others['are marked ignore'] += 1
        elif min(annotation['bbox'][2:]) < 1:
            others['have a side of less than a pixel'] += 1
        elif annotation.get('iscrowd'):
            others['are crowds'] += 1
        else:
            counts[name_of[annotation['category_id']]] += 1
    for what, count in others.items():
        _print(f'{source}: {count} boxes {what}, and are not trained on')
    if classes is not None:
        unnamed = {name: n for name, n in counts.items() if name not in classes}
        absent = [name for name in classes if name not in name_of.values()]
        if unnamed:
            _print(
                f'{source}: {sum(unnamed.values())} boxes are passed over, since the '
                f'data set names no class {_some(unnamed)}'
            )
        if absent:
            _print(f'{source}: there is no category {_some(absent)}')
        counts.subtract(unnamed)
    if not any(counts.values()):
        raise SystemExit(
            f'{key}: nothing is left of {source}; --no-data-check does not look'
        )


def _require_heads_for(config: Config, labels: list[str], classes: list[str]) -> None:
    """Compare the box heads with the labels that come and the classes there may be."""
    for key, num_classes in _classes_of_heads(config.get('model') or {}):
        if num_classes < len(labels):
            raise SystemExit(
                f'{key}: expected {len(labels)}, the classes of train_dataloader.'
                f'dataset, got {num_classes}: {_some(labels[num_classes:])} would be '
                'trained as background'
            )
        if num_classes > len(classes):
            _print(
                f'{key}: {num_classes}, and train_dataloader.dataset has '
                f'{len(classes)} classes, {_some(classes)}; the others have no objects'
            )


def _columns_are_words(model: dict) -> bool:
    return 'language_model' in model


def _classes_of_heads(model: dict) -> Iterator[tuple[str, int]]:
    """Keys of box heads and the ``num_classes`` that the config gives them."""
    if _columns_are_words(model):
        return
    heads = [*_stages(model, 'model', 'bbox_head')]
    for key, roi_head in _stages(model, 'model', 'roi_head'):
        heads += _stages(roi_head, key, 'bbox_head')
    for key, head in heads:
        if isinstance(head.get('num_classes'), int):
            yield f'{key}.num_classes', head['num_classes']


def _stages(parent: dict, key: str, name: str) -> Iterator[tuple[str, dict]]:
    """A part of a model, or each of a list of them, with its key."""
    given = parent.get(name)
    if isinstance(given, dict):
        yield f'{key}.{name}', given
    elif isinstance(given, list):
        for i, part in enumerate(given):
            if isinstance(part, dict):
                yield f'{key}.{name}[{i}]', part


def _some(names: Iterable[str]) -> str:
    return first_few([repr(name) for name in names], most=5)


def _check_metrics(
    config: Config,
    loader: str,
    dataset: dict,
    source: Path,
    cleaned: dict,
    judged: tuple[str, list[str]],
) -> None:
    """Look at the files that COCO's metrics take the truth from.

    A metric numbers the classes in the order of its own file.
    """
    for key, path, metric in local_files_of_metrics(config, loader):
        kind = built_class(metric, METRICS)
        is_coco = inspect.isclass(kind) and issubclass(kind, CocoMetric)
        if not is_coco or not key.endswith('.ann_file'):
            continue
        same = os.path.realpath(path) == os.path.realpath(source)
        try:
            document = cleaned if same else read_annotations(path)
        except (OSError, ValueError) as error:
            raise SystemExit(f'{key}: {error}') from error
        if not issubclass(kind, _NUMBER_ANEW) and not ids_count(
            document['annotations']
        ):
            _print(
                f'{key}: {path} has annotations whose id is 0 or no number. '
                "COCO's evaluation takes a hit on such an object for a false positive, "
                'or stops there; number them from 1, or take FewClassCocoMetric or '
                'FewClassLVISMetric, which do'
            )
        names = None if same else _labels(dataset, document)
        if names is not None:
            _require_same_labels(judged, (f'{key}: {path}', names))


def _require_same_labels(
    trained: tuple[str, list[str]], judged: tuple[str, list[str]]
) -> None:
    (train_key, train), (val_key, val) = trained, judged
    if not set(val) & set(train):
        raise SystemExit(
            f'{val_key}: of the classes of {train_key}, {_some(train)}, its data set '
            'takes none; metainfo.classes of each loader names what it takes'
        )
    # Classes that only the validation has are never found, which is right.
    if val[: len(train)] == train:
        return
    if train[: len(val)] == val:
        _print(
            f'{val_key}: there is no category {_some(train[len(val) :])}, or its data '
            f'set does not name it, which {train_key} has; CocoMetric stops where the '
            'detector finds one'
        )
        return
    pairs = zip(train, val, strict=False)
    at, (first, second) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
    raise SystemExit(
        f'the categories of the files stand in different orders, from which mmdet '
        f'numbers the classes: number {at} is {first!r} in {train_key} and {second!r} '
        f'in {val_key}'
    )


def _print(message: str) -> None:
    if int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))) == 0:
        print_log(message, level=logging.WARNING)
