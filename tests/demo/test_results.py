import json
import math
import pickle

import cv2
import numpy as np
import pytest
import torch

from daal_mmdet.datasets.coco_layout import CocoSplit
from daal_mmdet.demo.results import (
    choose_examples,
    format_table,
    load_examples,
    load_run,
)
from daal_mmdet.visualization import TrainedRun

GROUPS = ('many', 'few', 'few')
COUNTS = (400, 9, 3)
# Images and the labels of their objects; categories have ids 5, 6, 7.
HELD = {11: [0, 0, 0], 12: [1], 13: [2, 0], 14: [1, 2], 15: [1, 1, 1], 16: []}


@pytest.fixture
def split(tmp_path):
    rng = np.random.default_rng(0)
    annotations = []
    for image_id, labels in HELD.items():
        for label in labels:
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=image_id,
                    category_id=label + 5,
                    bbox=[2.0, 3.0, 10.0, 4.0],
                    area=40.0,
                )
            )
    document = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=24, height=16) for i in HELD],
        annotations=annotations,
        categories=[dict(id=i + 5, name=f'class {i}') for i in range(3)],
    )
    for image_id in HELD:
        cv2.imwrite(
            str(tmp_path / f'{image_id}.png'),
            rng.integers(0, 255, (16, 24, 3), dtype=np.uint8),
        )
    (tmp_path / 'val.json').write_text(json.dumps(document))
    return CocoSplit(
        tmp_path / 'val.json', tmp_path, ((24, 16),) * 6, (4, 5, 2), (2, 3, 2)
    )


def _run(name, few, medium, many, mean):
    return TrainedRun(
        name,
        np.zeros(0),
        {},
        np.zeros(3),
        dict(few=few, medium=medium, many=many, all=mean),
    )


def test_table_holds_every_group_and_the_difference():
    runs = [
        _run('FocalLoss', 0.01, math.nan, 0.6, 0.2),
        _run('DAALLoss', 0.1234, math.nan, 0.55, 0.25),
    ]
    lines = format_table(runs, GROUPS, COUNTS).splitlines()
    cells = [
        [c.strip() for c in line.strip('|').split('|')]
        for line in lines
        if line.startswith('|')
    ]
    assert cells == [
        [
            'AP (IoU 0.50:0.95)',
            'classes',
            'training boxes each',
            'FocalLoss',
            'DAALLoss',
            'difference',
        ],
        ['few classes', '2', '3 to 9', '0.010', '0.123', '+0.113'],
        ['medium classes', '0', '-', '-', '-', '-'],
        ['many classes', '1', '400 to 400', '0.600', '0.550', '-0.050'],
        ['all classes (mAP)', '3', '3 to 400', '0.200', '0.250', '+0.050'],
    ]


def test_examples_show_rare_classes_first_whatever_the_detections(split):
    # 14 holds both few classes; then 13 the rarer one, 12 and 15 the other.
    assert choose_examples(split, GROUPS, COUNTS, 4) == [14, 13, 12, 15]
    assert choose_examples(split, GROUPS, COUNTS, 100) == [14, 13, 12, 15, 11, 16]
    # Ids may be words.
    document = json.loads(split.ann_file.read_text())
    for image in document['images']:
        image['id'] = f'val_{image["id"]}'
    for annotation in document['annotations']:
        annotation['image_id'] = f'val_{annotation["image_id"]}'
    split.ann_file.write_text(json.dumps(document))
    chosen = choose_examples(split, GROUPS, COUNTS, 4)
    assert chosen == ['val_14', 'val_13', 'val_12', 'val_15']


def test_examples_are_read_with_truth_and_detections(split, tmp_path):
    def dump(name, boxes, labels):
        predictions = [
            dict(
                img_id=i,
                pred_instances=dict(
                    bboxes=torch.tensor(boxes),
                    labels=torch.tensor(labels),
                    scores=torch.full((len(labels),), 0.5),
                ),
            )
            for i in HELD
        ]
        with open(tmp_path / name, 'wb') as file:
            pickle.dump(predictions, file)
        return tmp_path / name

    files = [
        dump('a.pkl', [[1.0, 2.0, 3.0, 4.0]], [2]),
        dump('b.pkl', np.zeros((0, 4)).tolist(), []),
    ]
    both, empty = load_examples(split, [13, 16], files)
    bgr = cv2.imread(str(tmp_path / '13.png'))
    np.testing.assert_array_equal(both.image, bgr[..., ::-1])
    np.testing.assert_array_equal(both.truth.xyxy, [[2, 3, 12, 7]] * 2)
    np.testing.assert_array_equal(both.truth.labels, [2, 0])
    np.testing.assert_array_equal(both.detections[0].xyxy, [[1, 2, 3, 4]])
    np.testing.assert_array_equal(both.detections[0].labels, [2])
    assert len(both.detections[1].labels) == 0
    assert empty.truth.xyxy.shape == (0, 4)


def _log(work_dir, *entries):
    folder = work_dir / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(
        ''.join(json.dumps(entry) + '\n' for entry in entries)
    )


def test_a_run_is_read_from_its_log(tmp_path):
    _log(
        tmp_path,
        dict(loss=3.0, loss_cls=2.0, loss_bbox=1.0, step=10),
        dict(loss=1.5, loss_cls=1.0, loss_bbox=0.5, step=20),
        {
            'coco/bbox_mAP': 0.3,
            'coco/bbox_mAP_few': -1.0,
            'coco/bbox_mAP_medium': 0.2,
            'coco/bbox_mAP_many': 0.4,
            'coco/cat_precision': 0.4,
            'coco/dog_precision': math.nan,
            'step': 20,
        },
    )
    run = load_run('DAALLoss', tmp_path, ('dog', 'cat'))
    np.testing.assert_array_equal(run.iterations, [10, 20])
    np.testing.assert_array_equal(run.losses['loss_cls'], [2.0, 1.0])
    np.testing.assert_array_equal(run.class_ap, [math.nan, 0.4])
    assert run.group_ap == pytest.approx(
        dict(few=math.nan, medium=0.2, many=0.4, all=0.3), nan_ok=True
    )


def test_a_run_that_detects_nothing_has_no_ap(tmp_path):
    _log(
        tmp_path,
        dict(loss=3.0, loss_cls=2.0, loss_bbox=1.0, step=10),
        dict(data_time=0.1, time=0.2, step=10),
    )
    run = load_run('DAALLoss', tmp_path, ('dog', 'cat'))
    np.testing.assert_array_equal(run.class_ap, [0, 0])
    assert run.group_ap == dict(few=0, medium=0, many=0, all=0)


@pytest.mark.parametrize(
    ('entries', 'lacking'),
    [([], 'losses'), ([dict(loss=3.0, step=10)], 'the validation')],
)
def test_an_unfinished_run_says_what_is_missing(tmp_path, entries, lacking):
    _log(tmp_path, *entries)
    with pytest.raises(ValueError, match=f'no finished run: its log lacks {lacking}'):
        load_run('FocalLoss', tmp_path, ('dog',))
