"""What a tool looks at before it starts: data, weights and places to write to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from mmengine.config import Config

__all__ = [
    'require_data',
    'require_output_folder',
    'require_picture',
    'require_weights',
]


def require_data(config: Config, loader: str) -> None:
    """Exit with a message unless the files of a loader's data set are there.

    That is its annotation file, or the file of a series, or else the folder
    ``data_root``. Data that are not on a local disk are left alone, and so are lists of
    data sets.

    Args:
        config: Config of the run.
        loader: ``'train_dataloader'``, say.

    Raises:
        SystemExit: If it is missing; the message names the key and ends with the
            config's ``data_hint`` if it has one.
    """
    dataset = (config.get(loader) or {}).get('dataset')
    while isinstance(dataset, dict) and 'dataset' in dataset:
        dataset = dataset['dataset']
    if not isinstance(dataset, dict) or dataset.get('backend_args'):
        return
    root, series = dataset.get('data_root') or '', dataset.get('series')
    if isinstance(dataset.get('ann_file'), str):
        key, path, kind = 'ann_file', os.path.join(root, dataset['ann_file']), 'file'
    elif isinstance(series, str):
        # statsmodels:sunspots is no file.
        key, path, kind = 'series', '' if ':' in series else series, 'file'
    else:
        key, path, kind = 'data_root', root, 'folder'
    found = Path(path).is_file() if kind == 'file' else Path(path).is_dir()
    if path and '://' not in path and not found:
        hint = config.get('data_hint')
        raise SystemExit(
            f'{loader}.dataset.{key}: there is no {kind} {path!r}'
            + (f'. {hint}' if hint else '')
        )


def require_weights(config: Config) -> None:
    """Exit with a message unless the weights that a training starts from are there.

    Looked for are ``load_from`` and the checkpoint of the backbone, on local disks.

    Raises:
        SystemExit: If a file is missing; the message names the key, or the environment
            variable ``BACKBONE_CHECKPOINT`` if that gave it.
    """
    backbone = (config.get('model') or {}).get('backbone') or {}
    start = backbone.get('init_cfg')
    key = 'model.backbone.init_cfg.checkpoint'
    weights = {'load_from': config.get('load_from')}
    if isinstance(start, dict) and start.get('type') == 'Pretrained':
        given = os.environ.get('BACKBONE_CHECKPOINT') == start['checkpoint']
        weights['BACKBONE_CHECKPOINT' if given else key] = start['checkpoint']
    for name, path in weights.items():
        if path and '://' not in path and not Path(path).is_file():
            raise SystemExit(f'{name}: there is no file {path!r}')


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
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise SystemExit(
            f'{name}: {str(folder)!r} cannot be written to ({error.strerror}); name '
            'another folder'
        ) from error


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
