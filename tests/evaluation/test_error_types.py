import contextlib
import copy
import io
import json

import detection_errors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdet.datasets.api_wrappers import COCO
from pycocotools.cocoeval import COCOeval

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
            iscrowd=int(any(crowd)),
        )
        for i, (image, name, box, *crowd) in enumerate(boxes)
    ]
    return dict(
        images=[dict(id=i, width=100, height=100, file_name='') for i in range(4)],
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
    (1, 'owl', (60, 60, 10, 10)),
    (2, 'owl', (0, 0, 10, 10)),
    (2, 'owl', (2, 0, 10, 10)),
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
    # The second box of an object within a crowd is one on the crowd.
    (found(1, 'owl', (60, 60, 10, 10), 0.5), None),
    (found(1, 'owl', (60, 60, 10, 9), 0.4), None),
    # Both boxes overlap the first of two objects most; it is taken once.
    (found(2, 'owl', (0, 0, 10, 10), 0.9), None),
    (found(2, 'owl', (0.9, 0, 10, 10), 0.8), None),
    (found(2, 'owl', (1, 0, 10, 10), 0.7), 'duplicate'),
    (found(2, 'dog', (50, 50, 10, 10), 0.1), 'background'),
    # An image without objects.
    (found(3, 'dog', (0, 0, 10, 10), 0.1), 'background'),
]


def test_types_of_errors():
    detections, types = zip(*DETECTIONS, strict=True)
    coco = as_coco(annotated(BOXES))
    assert error_types(coco, detections) == list(types)
    # Whatever the order.
    assert error_types(coco, detections[::-1]) == list(types[::-1])
    assert error_types(coco, []) == []


@given(seed=st.integers(0, 500), count=st.integers(0, 30))
def test_no_errors_are_what_coco_counts_as_hits_or_not_at_all(seed, count):
    rng = np.random.default_rng(seed)

    def box():
        return (*rng.uniform(0, 5, 2), *rng.uniform(8, 12, 2))

    names = [CLASSES[i] for i in rng.integers(2, size=count + 6)]
    truths = [(0, name, box(), i > 4) for i, name in enumerate(names[:6])]
    coco = as_coco(annotated(truths))
    detections = [found(0, name, box(), rng.random()) for name in names[6:]]
    types = error_types(coco, detections)
    no_error = {d['score'] for d, t in zip(detections, types, strict=True) if t is None}
    if not detections:
        assert types == []
        return
    with contextlib.redirect_stdout(io.StringIO()):
        results = coco.loadRes([dict(detection) for detection in detections])
        evaluator = COCOeval(coco, results, 'bbox')
        evaluator.params.imgIds, evaluator.params.areaRng = [0], [[0, 1e10]]
        evaluator.params.areaRngLbl = ['all']
        evaluator.evaluate()
    found_by_coco = set()
    for entry in filter(None, evaluator.evalImgs):
        matched = (entry['dtMatches'][0] > 0) | (entry['dtIgnore'][0] > 0)
        found_by_coco.update(np.array(entry['dtScores'])[matched])
    assert no_error == found_by_coco


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
    assert np.isnan(class_precision(as_coco(annotated(BOXES[:4])), [])['owl'])


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
    # A box without iscrowd is none, one without area has that of its sides.
    document = annotated(BOXES[:3])
    for annotation in document['annotations']:
        del annotation['iscrowd'], annotation['area']
    truth.write_text(json.dumps(document))
    detection_errors.main(arguments)
    assert capsys.readouterr().out == out
    for annotation in document['annotations']:
        annotation['id'] -= 1
    truth.write_text(json.dumps(document))
    detection_errors.main(arguments)
    assert capsys.readouterr().out == out
    for annotation in document['annotations']:
        annotation['id'] += 1
    lvis = copy.deepcopy(document)
    lvis['images'][0]['neg_category_ids'] = []
    truth.write_text(json.dumps(lvis))
    with pytest.raises(SystemExit, match=r'val\.json is an LVIS file, which says noth'):
        detection_errors.main(arguments)
    document['annotations'][1]['bbox'] = [1, 2]
    truth.write_text(json.dumps(document))
    with pytest.raises(
        SystemExit,
        match=r'val\.json: 1 boxes without four finite .*tion 2, bbox \[1, 2\]\)$',
    ):
        detection_errors.main(arguments)
    document = annotated(BOXES[:3])
    document['categories'][1]['name'] = document['categories'][0]['name']
    truth.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match=r"category names repeat: \['cat'\]"):
        detection_errors.main(arguments)
    truth.write_text(json.dumps(annotated(BOXES[:3])))
    expected = r'out\.bbox\.json: expected a bbox of four finite numbers and a finite'
    for detections, message in (
        ([DETECTIONS[0][0] | {'bbox': [1, 2, 3]}], expected),
        ([DETECTIONS[0][0] | {'bbox': [1, 2, 3, None]}], expected),
        ([DETECTIONS[0][0] | {'score': float('nan')}], expected),
        ('[{"image_id"', 'out.bbox.json is no JSON, or only part of one'),
        ('{}', r"is no list of detections with \['bbox', 'category_id', 'im"),
        ([DETECTIONS[0][0] | {'image_id': 77}], 'on 1 images that .* such as 77'),
        ([DETECTIONS[0][0] | {'category_id': 9}], 'of 1 categories that .* such as 9'),
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
    train.write_text('{"images"')
    with pytest.raises(
        SystemExit, match=r'train\.json is no JSON, or only part of one'
    ):
        detection_errors.main(arguments)
