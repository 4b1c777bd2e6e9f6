import contextlib
import io
import json

import detection_errors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdet.datasets.api_wrappers import COCO

from daal_mmdet.evaluation.error_types import (
    class_precision,
    error_table,
    error_types,
)
from tests import oracles

CLASSES = ['cat', 'dog', 'owl']


def annotated(boxes):
    """Annotations of (image, class, box) or (image, class, box, True) for a crowd."""
    annotations = [
        dict(
            id=i + 1,
            image_id=image,
            category_id=CLASSES.index(name) + 1,
            bbox=list(box),
            area=box[2] * box[3],
            iscrowd=int(bool(crowd)),
        )
        for i, (image, name, box, *crowd) in enumerate(boxes)
    ]
    return dict(
        images=[dict(id=i, width=100, height=100, file_name='') for i in range(3)],
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
    )


def as_coco(document):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = document
        coco.createIndex()
    return coco


def found(image, name, box, score):
    category = CLASSES.index(name) + 1
    return dict(image_id=image, category_id=category, bbox=list(box), score=score)


BOXES = [
    (0, 'cat', (0, 0, 10, 10)),
    (0, 'dog', (50, 50, 10, 10)),
    (1, 'cat', (0, 0, 10, 10)),
    (1, 'owl', (40, 40, 40, 40), True),
]
DETECTIONS = [
    (found(0, 'cat', (0, 0, 10, 10), 0.6), None),
    (found(0, 'cat', (0, 0, 10, 9), 0.5), 'duplicate'),
    (found(0, 'cat', (50, 50, 10, 10), 0.9), 'confusion'),
    (found(0, 'dog', (50, 50, 10, 4), 0.8), 'location'),
    (found(0, 'dog', (80, 80, 5, 5), 0.3), 'background'),
    # It touches an object of another class.
    (found(0, 'owl', (0, 0, 10, 2), 0.7), 'background'),
    (found(1, 'owl', (45, 45, 5, 5), 0.7), None),
    (found(1, 'owl', (46, 46, 5, 5), 0.6), None),
    # The better one has the lower score.
    (found(1, 'cat', (0, 0, 10, 8), 0.4), None),
    (found(1, 'cat', (0, 0, 10, 10), 0.2), 'duplicate'),
    # An image without objects.
    (found(2, 'dog', (0, 0, 10, 10), 0.1), 'background'),
]


def test_types_of_errors():
    detections, types = zip(*DETECTIONS, strict=True)
    coco = as_coco(annotated(BOXES))
    assert error_types(coco, detections) == list(types)
    # Whatever the order.
    assert error_types(coco, detections[::-1]) == list(types[::-1])
    assert error_types(coco, []) == []


@given(seed=st.integers(0, 500), count=st.integers(0, 12))
def test_precision_of_a_class_is_the_oracles(seed, count):
    rng = np.random.default_rng(seed)

    def box():
        return (*rng.uniform(0, 20, 2), *rng.uniform(5, 15, 2))

    truths = [(int(rng.integers(3)), 'cat', box()) for _ in range(4)]
    detections = [
        found(int(rng.integers(3)), 'cat', box(), score) for score in rng.random(count)
    ]
    detections += [found(i, 'cat', b, rng.random()) for i, _, b in truths[:2]]
    got = class_precision(as_coco(annotated(truths)), detections)
    thresholds = np.linspace(0.5, 0.95, 10)
    want = oracles.coco_average_precision(
        [[b for i, _, b in truths if i == image] for image in range(3)],
        [
            [(d['score'], d['bbox']) for d in detections if d['image_id'] == image]
            for image in range(3)
        ],
        thresholds,
    )
    assert got['cat'] == pytest.approx(np.mean(want), abs=1e-9)
    assert np.isnan(got['dog'])


def test_no_detections_have_no_precision():
    coco = as_coco(annotated(BOXES[:2]))
    got = class_precision(coco, [])
    assert (got['cat'], got['dog']) == (0, 0)
    assert np.isnan(got['owl'])
    # A crowd is no ground truth.
    assert np.isnan(class_precision(as_coco(annotated(BOXES)), [])['owl'])


def test_table_tells_what_a_kind_of_error_costs():
    truths = [(0, 'cat', (0, 0, 10, 10)), (0, 'dog', (50, 50, 10, 10))]
    detections = [
        found(0, 'cat', (50, 50, 10, 10), 0.9),
        found(0, 'cat', (0, 0, 10, 10), 0.8),
        found(0, 'dog', (50, 50, 10, 10), 0.7),
        found(0, 'dog', (20, 20, 10, 10), 0.2),
    ]
    before = [dict(d) for d in detections]
    table = error_table(
        as_coco(annotated(truths)), detections, {'few': ['cat'], 'all': CLASSES}
    )
    assert detections == before
    assert table.splitlines() == [
        '| AP | few | all |',
        '|---|---:|---:|',
        '| as detected | 0.500 | 0.750 |',
        '| without confusion | 1.000 (+0.500) | 1.000 (+0.250) |',
        '| without location | 0.500 (+0.000) | 0.750 (+0.000) |',
        '| without duplicate | 0.500 (+0.000) | 0.750 (+0.000) |',
        '| without background | 0.500 (+0.000) | 0.750 (+0.000) |',
    ]


def test_tool(tmp_path, capsys):
    truth, train = tmp_path / 'val.json', tmp_path / 'train.json'
    results = tmp_path / 'out.bbox.json'
    truth.write_text(json.dumps(annotated(BOXES[:3])))
    train.write_text(json.dumps(annotated([BOXES[0]] * 3 + [BOXES[1]] * 2)))
    results.write_text(json.dumps([d for d, _ in DETECTIONS]))
    arguments = [str(truth), str(results), '--train-annotations', str(train)]
    detection_errors.main(arguments)
    out = capsys.readouterr().out
    assert out.splitlines()[0] == '| AP | few | medium | many | all |'
    assert out.splitlines()[-3:] == ['- few: owl', '- medium: dog', '- many: cat']

    with pytest.raises(SystemExit):
        detection_errors.main([str(truth), str(tmp_path / 'none.json')])
    text = f'there is no file {tmp_path / "none.json"}'
    assert text in capsys.readouterr().err
    # A box without iscrowd is none.
    document = annotated(BOXES[:3])
    for annotation in document['annotations']:
        del annotation['iscrowd']
    truth.write_text(json.dumps(document))
    detection_errors.main(arguments)
    assert capsys.readouterr().out == out
    for detections, message in (
        ('[{"image_id"', 'out.bbox.json is no JSON, or only part of one'),
        ('{}', r"is no list of detections with \['bbox', 'category_id', 'im"),
        ([DETECTIONS[0][0] | {'image_id': 77}], 'on 1 images that .* such as 77'),
    ):
        text = detections if isinstance(detections, str) else json.dumps(detections)
        results.write_text(text)
        with pytest.raises(SystemExit, match=message):
            detection_errors.main(arguments)
    results.write_text('[]')
    truth.write_text('{}')
    with pytest.raises(SystemExit, match='val.json is no COCO detection file'):
        detection_errors.main(arguments)
    truth.write_text(json.dumps(annotated(BOXES[:3])))

    document = annotated(BOXES)
    document['categories'] = document['categories'][:1]
    document['annotations'] = document['annotations'][:1]
    train.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match=r"train.json has no category \['dog', 'owl'"):
        detection_errors.main(arguments)
