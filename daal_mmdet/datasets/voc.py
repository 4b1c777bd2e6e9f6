"""Conversion of a Pascal VOC data set to COCO JSON."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from daal_mmdet.datasets.image_header import read_image_header
from daal_mmdet.progress import progress_bar
from daal_mmdet.whole_file import write_whole

__all__ = ['Conversion', 'Defect', 'convert_voc']

_LOWER_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')
_IMAGE_SUFFIXES = (*_LOWER_SUFFIXES, *map(str.upper, _LOWER_SUFFIXES))


@dataclass(frozen=True)
class Defect:
    """Something wrong with one box or one file.

    Attributes:
        split: The split it was met in.
        file: The annotation file, below ``Annotations``.
        reason: What is wrong, with the values.
        dropped: Whether a box was left out for it; else it was mended.
    """

    split: str
    file: str
    reason: str
    dropped: bool


@dataclass
class Conversion:
    """What a conversion did.

    Attributes:
        classes: Class names in the order of their ids, which start from 1.
        images: Number of images of each split.
        boxes: Number of boxes of each class, by split.
        defects: Every box that was dropped or mended, and every file that disagrees
            with its image.
    """

    classes: tuple[str, ...]
    images: dict[str, int] = field(default_factory=dict)
    boxes: dict[str, Counter[str]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)

    @property
    def num_dropped(self) -> int:
        """Number of boxes that were left out."""
        return sum(defect.dropped for defect in self.defects)


def convert_voc(
    root: str | os.PathLike,
    out: str | os.PathLike,
    splits: Sequence[str] = ('train', 'val', 'test'),
    classes: Sequence[str] | None = None,
    one_based: bool = True,
    copy_images: bool = False,
    progress: bool = True,
) -> Conversion:
    """Write ``out/annotations/{split}.json`` and link the images beside them.

    Reads ``Annotations/*.xml``, ``ImageSets/Main/{split}.txt`` and ``JPEGImages/``.
    A box that is not a box (a missing or non-numeric corner, no width or height, wholly
    outside its image) or not of a listed class is dropped and reported. One that
    reaches beyond its image is clipped and reported. Where a file states another image
    size than its image has (turned upright as its EXIF tag says, the way mmdet loads
    it), the image is believed and the file reported. ``difficult``
    objects become ``iscrowd``, the flag by which both mmdet's training and COCO's
    evaluation leave a box out of account. Images without a box stay. A list names files
    without their suffix, with their folder if they lie in one, and a name may hold
    spaces.

    Like mmdet's ``VOCDataset``, 1 is subtracted from all four corners, which VOC counts
    from 1.

    Args:
        root: Folder of the VOC data set.
        out: Folder to write to; JSON files in it are replaced, one at a time and whole.
        splits: Names of the lists in ``ImageSets/Main``.
        classes: Names of the classes in the order of their ids. None takes every name
            that the first split holds, most frequent first, and then those that only
            the others hold.
        one_based: Whether corners are counted from 1, as in VOC, or from 0.
        copy_images: Copy the images instead of linking their folder.
        progress: Show a progress bar.

    Returns:
        What was written and what was wrong; also in ``out/annotations/report.json``.

    Raises:
        FileNotFoundError: If a folder, a list, an annotation file or an image is
            missing; all that are missing are named before anything is written.
        ValueError: If an annotation file is no XML; a list is not UTF-8, is empty or
            holds an image twice; a class is named twice; or an image has more pixels
            than Pillow opens.
    """
    root, out = Path(root), Path(out)
    twice = _repeated(classes or ())
    if twice:
        raise ValueError(f'classes: {twice} are named more than once')
    names = {split: _read_list(root, split) for split in splits}
    files = _find_files(root, names)
    objects = {}
    with progress_bar(
        total=len(files), desc='Reading annotations', unit='file', disable=not progress
    ) as bar:
        for name, (xml, image) in files.items():
            objects[name] = _read_objects(xml, image)
            bar.update()
    if classes is None:
        classes = _order_classes(
            [
                [o['name'] for n in names[split] for o in objects[n][1]]
                for split in splits
            ]
        )
    conversion = Conversion(tuple(classes))
    folder = out / 'annotations'
    folder.mkdir(parents=True, exist_ok=True)
    _provide_images(root / 'JPEGImages', out / 'JPEGImages', copy_images)
    for split in splits:
        document = _convert_split(
            root, split, names[split], files, objects, one_based, conversion
        )
        write_whole(folder / f'{split}.json', json.dumps(document))
    report = {
        'classes': conversion.classes,
        'images': conversion.images,
        'boxes': conversion.boxes,
        'defects': [asdict(defect) for defect in conversion.defects],
    }
    write_whole(folder / 'report.json', json.dumps(report))
    return conversion


def _read_list(root: Path, split: str) -> list[str]:
    path = root / 'ImageSets' / 'Main' / f'{split}.txt'
    if not path.is_file():
        there = sorted(file.stem for file in path.parent.glob('*.txt'))
        raise FileNotFoundError(f'splits: there is no {path}; there are {there}')
    try:
        # Windows' editors begin a file with a byte order mark.
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8: {error}') from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f'{path} lists no image')
    # A list of one class has a second column, of 1, 0 and -1. Names that end so are
    # told from it by their files.
    columns = [re.fullmatch(r'(.*\S)\s+(?:-1|0|1)', name) for name in names]
    if all(columns) and not all(_annotation_file(root, n).is_file() for n in names):
        names = [column[1] for column in columns]
    # ./a is a.
    names = [Path(name).as_posix() for name in names]
    twice = _repeated(names)
    if twice:
        raise ValueError(f'{path} lists {twice} more than once')
    return names


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _annotation_file(root: Path, name: str) -> Path:
    return root / 'Annotations' / f'{name}.xml'


def _find_files(
    root: Path, names: dict[str, list[str]]
) -> dict[str, tuple[Path, Path]]:
    """Annotation file and image of each name; complains of all missing at once."""
    files, missing = {}, []
    for name in dict.fromkeys(name for split in names.values() for name in split):
        xml = _annotation_file(root, name)
        stem = root / 'JPEGImages' / name
        images = [stem.with_name(stem.name + suffix) for suffix in _IMAGE_SUFFIXES]
        image = next((image for image in images if image.is_file()), None)
        if not xml.is_file():
            missing.append(str(xml))
        if image is None:
            missing.append(f'{images[0]} (or {", ".join(_LOWER_SUFFIXES[1:])})')
        else:
            files[name] = (xml, image)
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} files are missing:\n  ' + '\n  '.join(missing)
        )
    return files


def _read_objects(xml: Path, image: Path) -> tuple[dict, list[dict]]:
    """Sizes of the image, as it is and as stated, and the raw objects."""
    try:
        tree = ET.parse(xml).getroot()
    # An encoding that Python's parser does not know is one of the last two.
    except (ET.ParseError, LookupError, ValueError) as error:
        raise ValueError(f'{xml} is no XML: {error}') from error
    stated = tuple(
        (tree.findtext(f'size/{key}') or '').strip() for key in ('width', 'height')
    )
    objects = []
    for element in tree.iter('object'):
        corners = [
            element.findtext(f'bndbox/{key}')
            for key in ('xmin', 'ymin', 'xmax', 'ymax')
        ]
        objects.append(
            {
                'name': (element.findtext('name') or '').strip(),
                'corners': corners,
                'difficult': (element.findtext('difficult') or '').strip() == '1',
            }
        )
    return {'size': _image_size(image), 'stated': stated}, objects


def _image_size(path: Path) -> tuple[int, int]:
    """(width, height) as mmdet's ``LoadImageFromFile`` will see it, upright."""
    try:
        width, height, orientation = read_image_header(path)
    except Image.DecompressionBombError as error:
        raise ValueError(f'{path}: {error}') from error
    # These are a quarter turn, which OpenCV makes when it reads.
    turned = orientation in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def _order_classes(names_of_split: Iterable[Sequence[str]]) -> list[str]:
    order: dict[str, None] = {}
    for names in names_of_split:
        counts = Counter(name for name in names if name)
        ranked = sorted(counts, key=lambda name: (-counts[name], name))
        order.update(dict.fromkeys(ranked))
    return list(order)


def _convert_split(
    root: Path,
    split: str,
    names: Sequence[str],
    files: dict[str, tuple[Path, Path]],
    objects: dict[str, tuple[dict, list[dict]]],
    one_based: bool,
    conversion: Conversion,
) -> dict:
    ids = {name: i for i, name in enumerate(conversion.classes, start=1)}
    images: list[dict] = []
    annotations: list[dict] = []
    boxes: Counter[str] = Counter()

    def report(reason: str, dropped: bool) -> None:
        file = xml.relative_to(root / 'Annotations').as_posix()
        conversion.defects.append(Defect(split, file, reason, dropped))

    for name in names:
        xml, image = files[name]
        sizes, found = objects[name]
        width, height = sizes['size']
        if any(sizes['stated']) and sizes['stated'] != (str(width), str(height)):
            stated = ' x '.join(sizes['stated'])
            report(
                f'states a size of {stated}, the image has {width} x {height}', False
            )
        images.append(
            {
                'id': len(images) + 1,
                'file_name': image.relative_to(root / 'JPEGImages').as_posix(),
                'width': width,
                'height': height,
            }
        )
        for item in found:
            if item['name'] not in ids:
                report(f'class {item["name"]!r} is not one of {list(ids)}', True)
                continue
            box, problem = _parse_box(item['corners'], width, height, one_based)
            if problem:
                report(f'{item["name"]} {problem}', box is None)
            if box is None:
                continue
            x, y, right, bottom = box
            boxes[item['name']] += 1
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': images[-1]['id'],
                    'category_id': ids[item['name']],
                    'bbox': [x, y, right - x, bottom - y],
                    'area': (right - x) * (bottom - y),
                    'iscrowd': int(item['difficult']),
                }
            )
    conversion.images[split] = len(images)
    conversion.boxes[split] = boxes
    categories = [{'id': i, 'name': name} for name, i in ids.items()]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def _parse_box(
    corners: Sequence[str | None], width: int, height: int, one_based: bool
) -> tuple[tuple[float, float, float, float] | None, str]:
    """The box clipped to its image, or None; and what is wrong with it, or ''."""
    shown = ', '.join(str(corner) for corner in corners)
    try:
        values = [float(corner) for corner in corners if corner is not None]
    except ValueError:
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)):
        return None, f'box ({shown}) lacks a number'
    x, y, right, bottom = (value - one_based for value in values)
    if right <= x or bottom <= y:
        return None, f'box ({shown}) has no area'
    clipped = (max(x, 0.0), max(y, 0.0), min(right, width), min(bottom, height))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, f'box ({shown}) lies outside its {width} x {height} image'
    if clipped != (x, y, right, bottom):
        return clipped, f'box ({shown}) reaches beyond its {width} x {height} image'
    return clipped, ''


def _provide_images(source: Path, target: Path, copy: bool) -> None:
    if source.parent.resolve() == target.parent.resolve():
        return
    if target.is_symlink():
        target.unlink()
    if copy:
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif target.exists():
        raise FileExistsError(
            f'{target} is there and no link: delete it, or copy the images into it '
            'with --copy-images'
        )
    else:
        target.symlink_to(source.resolve(), target_is_directory=True)
