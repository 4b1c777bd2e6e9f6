"""What a tool looks at before it starts: data, weights and places to write to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from mmengine.config import Config

from daal_mmdet.checkpoints import why_damaged
from daal_mmdet.data_check import local_dataset, local_files_of_metrics
from daal_mmdet.placed_dicts import PRETRAINED, bare_type, placed_dicts

__all__ = [
    'hold_folder',
    'require_checkpoint',
    'require_data',
    'require_file',
    'require_output_folder',
    'require_picture',
    'require_weights',
]


def require_file(name: str, path: str) -> None:
    """Exit with a message unless ``path``, in which ~ is home, is a file or a URL."""
    if '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        raise SystemExit(f'{name}: there is no file {path!r}')


def require_checkpoint(name: str, path: str) -> None:
    """Exit with a message unless ``path`` is a checkpoint in whole, or a URL."""
    require_file(name, path)
    if '://' in path:
        return
    reason = why_damaged(os.path.expanduser(path))
    if reason is not None:
        raise SystemExit(f"{name}: {path} can't be read: {reason}")


def require_data(config: Config, part: str) -> None:
    """Exit with a message unless the files of a loop are there.

    Those of its data set are the annotation file (a folder with some data sets), or the
    file of a series, or else ``data_root``; those of its metrics ``ann_file`` and
    ``train_ann_file``. Data that are not on a local disk are left alone, and so are
    lists of data sets and of loaders.

    Args:
        config: Config of the run.
        part: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        SystemExit: If one is missing; the message names the key and ends with the
            config's ``data_hint`` if it has one.
    """
    metrics = local_files_of_metrics(config, part)
    for key, path, *_ in (*_data_of(config, part), *metrics):
        # Some data sets read a folder of annotations, or one file of everything.
        either = key.endswith(('dataset.ann_file', 'data_root'))
        if not (os.path.exists if either else os.path.isfile)(path):
            kind = 'folder' if key.endswith('data_root') else 'file'
            hint = config.get('data_hint')
            raise SystemExit(
                f'{key}: there is no {kind} {path!r}' + (f'. {hint}' if hint else '')
            )


def require_weights(config: Config) -> None:
    """Exit with a message unless the weights that a training starts from are there.

    Looked for are ``load_from`` and the checkpoints of the model and of its parts
    (``init_cfg`` of type ``Pretrained``), on local disks.

    Raises:
        SystemExit: If a file is missing; the message names the key, or the environment
            variable ``BACKBONE_CHECKPOINT`` if that gave it.
    """
    if config.get('load_from'):
        require_file('load_from', config['load_from'])
    for key, start in placed_dicts(config.get('model'), 'model'):
        path = start.get('checkpoint')
        if bare_type(start) in PRETRAINED and path:
            given = os.environ.get('BACKBONE_CHECKPOINT') == path
            require_file('BACKBONE_CHECKPOINT' if given else f'{key}.checkpoint', path)


def require_output_folder(name: str, folder: str | os.PathLike) -> None:
    """Exit with a message unless a folder, there or to be made, can be written to.

    It is not made here, so that a tool that ends with another message leaves none.

    Args:
        name: The option that names it.
        folder: The folder.
    """
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b'?')
    except OSError as error:
        raise SystemExit(
            f'{name}: {str(folder)!r} cannot be written to ({error.strerror}); name '
            'another folder'
        ) from error


@contextlib.contextmanager
def hold_folder(name: str, folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes that hold it out, or exit with a message.

    Args:
        name: The option that names it.
        folder: The folder; a file ``lock`` stays there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SystemExit(
                f'{name}: another process is at work in {str(folder)!r}; wait for it, '
                'or name another folder'
            ) from error
        yield


def require_picture(name: str, path: str | os.PathLike) -> None:
    """Exit with a message unless matplotlib can write a picture there.

    Args:
        name: The option that names it.
        path: The file; its ending says the format.
    """
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    ending = Path(path).suffix
    if ending.lower().removeprefix('.') not in known:
        raise SystemExit(
            f'{name}: expected a file that ends in one of {known}, got {str(path)!r}'
        )
    require_output_folder(name, Path(path).parent)


def _data_of(config: Config, part: str) -> Iterator[tuple[str, str]]:
    """What the data set of a loop reads, and its key."""
    loader = f'{part}_dataloader'
    dataset = local_dataset(config, loader) or {}
    root, file = dataset.get('data_root') or '', dataset.get('ann_file')
    series = dataset.get('series')
    # '' is mmengine's default for data sets that have none.
    if file and isinstance(file, str):
        yield f'{loader}.dataset.ann_file', os.path.join(root, file)
    elif isinstance(series, str):
        # statsmodels:sunspots is no file.
        if ':' not in series:
            yield f'{loader}.dataset.series', series
    elif root:
        yield f'{loader}.dataset.data_root', root
