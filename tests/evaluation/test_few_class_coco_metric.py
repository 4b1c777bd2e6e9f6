import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from pycocotools.cocoeval import COCOeval

from daal_mmdet.evaluation.class_counts import count_classes
from daal_mmdet.evaluation.few_class_coco_metric import group_classes
from tests import oracles

CLASSES = ('cat', 'dog', 'emu', 'fox', 'gnu')
THRESHOLDS = np.arange(0.5, 0.96, 0.05)


def random_boxes(rng, n):
    return np.c_[rng.uniform(0, 50, (n, 2)), rng.uniform(8, 40, (n, 2))].round(1)


def write_annotations(path, boxes_of_image, classes=CLASSES):
    """``boxes_of_image[i]``: (class index, box) pairs. Ids are not in class order."""
    ids = {c: 10 * ((c * 3) % len(classes)) + 1 for c in range(len(classes))}
    annotations = [
        {
            'image_id': i,
            'category_id': ids[c],
            'bbox': list(map(float, box)),
            'area': float(box[2] * box[3]),
            'iscrowd': 0,
        }
        for i, boxes in enumerate(boxes_of_image)
        for c, box in boxes
    ]
    document = {
        'images': [
            {'id': i, 'width': 100, 'height': 100, 'file_name': f'{i}.jpg'}
            for i in range(len(boxes_of_image))
        ],
        'categories': [{'id': ids[c], 'name': n} for c, n in enumerate(classes)],
        'annotations': [{'id': k + 1, **a} for k, a in enumerate(annotations)],
    }
    path.write_text(json.dumps(document))
    return str(path)


@pytest.fixture
def train_file(tmp_path):
    """1, 2, 3, 4 and 5 training instances; emu and fox share an image."""
    box = [1, 1, 9, 9]
    images = [[(c, box)] for c, n in enumerate(range(1, 6)) for _ in range(n)]
    return write_annotations(tmp_path / 'train.json', images)


def evaluate(val_file, predictions, kind='FewClassCocoMetric', **options):
    """``predictions[i]``: (class index, score, box) triples."""
    metric = METRICS.build(
        {
            'type': kind,
            'ann_file': val_file,
            'metric': 'bbox',
            **options,
        }
    )
    metric.dataset_meta = {'classes': options.pop('classes', CLASSES)}
    for i, found in enumerate(predictions):
        boxes = torch.tensor([list(box) for _, _, box in found]).reshape(-1, 4)
        boxes = boxes.double()
        boxes[:, 2:] += boxes[:, :2]
        sample = {
            'img_id': i,
            'ori_shape': (100, 100),
            'pred_instances': {
                'bboxes': boxes,
                'scores': torch.tensor([score for _, score, _ in found]),
                'labels': torch.tensor([c for c, _, _ in found], dtype=torch.long),
            },
        }
        metric.process({}, [sample])
    return metric.evaluate(size=len(predictions))


def random_case(seed, num_images=6):
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(num_images):
        n = rng.integers(1, 6)
        boxes = random_boxes(rng, n)
        # Class 4 is never in the validation set.
        classes = rng.integers(0, 4, n)
        truths.append(list(zip(classes, boxes, strict=True)))
        found = []
        for c, box in truths[-1]:
            if rng.uniform() < 0.8:
                found.append((c, rng.uniform(), box + rng.normal(size=4)))
        for box in random_boxes(rng, rng.integers(0, 4)):
            found.append((rng.integers(0, 5), rng.uniform(), box))
        predictions.append(found)
    return truths, predictions


def class_ap(truths, predictions):
    """(class, threshold), by the slow oracle."""
    return np.array(
        [
            oracles.coco_average_precision(
                [[box for c, box in image if c == k] for image in truths],
                [[(s, box) for c, s, box in image if c == k] for image in predictions],
                THRESHOLDS,
            )
            for k in range(len(CLASSES))
        ]
    )


@pytest.mark.parametrize('seed', range(6))
def test_group_averages_match_a_slow_oracle(tmp_path, train_file, seed):
    truths, predictions = random_case(seed)
    ap = class_ap(truths, predictions)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    metrics = evaluate(val_file, predictions, train_ann_file=train_file)
    # 1, 2 | 3 | 4, 5 training instances
    for group, classes in (('few', [0, 1]), ('medium', [2]), ('many', [3, 4])):
        values = ap[classes]
        want, want_50 = np.nan, np.nan
        if not np.isnan(values).all():
            want, want_50 = np.nanmean(values), np.nanmean(values[:, 0])
        for item, value in (('mAP', want), ('mAP_50', want_50)):
            value = -1 if np.isnan(value) else value
            got = metrics[f'coco/bbox_{item}_{group}']
            assert got == pytest.approx(value, abs=6e-4)
    assert metrics['coco/bbox_mAP'] == pytest.approx(np.nanmean(ap), abs=6e-4)


def number_by_position(annotations):
    """A copy of a file with ids that ascend, as ``CocoMetric`` needs them."""
    document = json.loads(Path(annotations).read_text())
    ids = {c['id']: i for i, c in enumerate(document['categories'])}
    for category in document['categories']:
        category['id'] = ids[category['id']]
    for annotation in document['annotations']:
        annotation['category_id'] = ids[annotation['category_id']]
    copy = Path(annotations).with_name('ascending.json')
    copy.write_text(json.dumps(document))
    return str(copy)


def test_everything_that_coco_metric_reports_stays(tmp_path, train_file):
    truths, predictions = random_case(0)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    ascending = number_by_position(val_file)
    plain = evaluate(ascending, predictions, 'CocoMetric', classwise=True)
    for file in (ascending, val_file):
        metrics = evaluate(file, predictions, train_ann_file=train_file, classwise=True)
        kept = {name: metrics[name] for name in plain}
        assert kept == pytest.approx(plain, nan_ok=True)
    assert {'coco/cat_precision', 'coco/bbox_mAP_75'} <= set(plain)


@pytest.mark.parametrize('several', [False, True])
def test_each_class_has_its_own_ap_whatever_its_id(
    tmp_path, train_file, several, monkeypatch
):
    truths, predictions = random_case(1)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', said.append)
    metrics = evaluate(
        val_file,
        predictions,
        train_ann_file=train_file,
        classwise=True,
        use_mp_eval=several and hasattr(coco_metric, 'COCOevalMP'),
    )
    want = class_ap(truths, predictions).mean(1)
    assert len(set(want[:4].round(3))) == 4
    table = next(text for text in said if 'category' in text)
    for name, value in zip(CLASSES, want, strict=True):
        got = metrics[f'coco/{name}_precision']
        assert got == pytest.approx(value, abs=6e-4, nan_ok=True)
        # CocoMetric's table says the same.
        assert re.search(rf'\| {name} +\| {got} +\|', table)


def test_class_groups_may_be_named(tmp_path):
    truths = [[(0, [5, 5, 20, 20]), (1, [50, 50, 30, 30])]]
    predictions = [[(0, 0.9, [5, 5, 20, 20])]]
    val_file = write_annotations(tmp_path / 'val.json', truths)
    groups = {'few': ['cat'], 'many': ['dog', 'gnu']}
    metrics = evaluate(val_file, predictions, groups=groups)
    assert metrics['coco/bbox_mAP_few'] == pytest.approx(1)
    assert metrics['coco/bbox_mAP_many'] == 0
    assert metrics['coco/bbox_mAP_medium'] == -1


def test_groups_of_masks(tmp_path, train_file):
    """Boxes of two classes found exactly, masks of one of them only half."""
    truths = [[(0, [10, 10, 20, 20]), (4, [50, 50, 20, 20])]]
    val_file = tmp_path / 'val.json'
    write_annotations(val_file, truths)
    document = json.loads(val_file.read_text())
    for annotation in document['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    val_file.write_text(json.dumps(document))
    masks = np.zeros((2, 100, 100), np.uint8)
    masks[0, 10:30, 10:30] = 1
    masks[1, 50:70, 50:64] = 1
    metric = METRICS.build(
        {
            'type': 'FewClassCocoMetric',
            'ann_file': str(val_file),
            'metric': ['bbox', 'segm'],
            'train_ann_file': train_file,
        }
    )
    metric.dataset_meta = {'classes': CLASSES}
    found = {
        'bboxes': torch.tensor([[10.0, 10, 30, 30], [50, 50, 70, 70]]),
        'scores': torch.tensor([0.9, 0.8]),
        'labels': torch.tensor([0, 4]),
        'masks': torch.from_numpy(masks),
    }
    sample = {'img_id': 0, 'ori_shape': (100, 100), 'pred_instances': found}
    metric.process({}, [sample])
    metrics = metric.evaluate(size=1)
    assert metrics['coco/bbox_mAP_few'] == pytest.approx(1)
    assert metrics['coco/segm_mAP_few'] == pytest.approx(1)
    assert metrics['coco/bbox_mAP_many'] == pytest.approx(1)
    # An IoU of 0.7 passes the thresholds 0.5, 0.55, 0.6, 0.65 and 0.7.
    assert metrics['coco/segm_mAP_many'] == pytest.approx(0.5)
    assert metrics['coco/segm_mAP_50_many'] == pytest.approx(1)


@pytest.mark.skipif(
    not hasattr(coco_metric, 'COCOevalMP'), reason='this mmdet has no COCOevalMP'
)
def test_evaluation_in_several_processes(tmp_path, train_file):
    truths, predictions = random_case(5)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    one = evaluate(val_file, predictions, train_ann_file=train_file)
    several = evaluate(
        val_file, predictions, train_ann_file=train_file, use_mp_eval=True
    )
    assert several == pytest.approx(one)


def test_one_threshold_that_is_not_a_half_has_no_ap50(tmp_path, train_file):
    truths, predictions = random_case(0)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    options = {'iou_thrs': np.array([0.75]), 'metric_items': ['mAP_75']}
    metrics = evaluate(val_file, predictions, train_ann_file=train_file, **options)
    ap_75 = evaluate(val_file, predictions, groups={'many': CLASSES}, **options)
    assert ap_75['coco/bbox_mAP_many'] == ap_75['coco/bbox_mAP_75']
    assert not [key for key in metrics if 'mAP_50' in key]


@pytest.mark.parametrize('mark', ['iscrowd', 'ignore'])
def test_what_is_not_trained_does_not_count(tmp_path, train_file, mark):
    truths, predictions = random_case(0)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    crowded = json.loads(Path(train_file).read_text())
    (cat,) = (c['id'] for c in crowded['categories'] if c['name'] == 'cat')
    crowd = {'image_id': 0, 'category_id': cat, 'bbox': [1, 1, 9, 9], 'area': 81}
    crowded['annotations'] += [{**crowd, 'id': 99 + i, mark: 1} for i in range(9)]
    other = tmp_path / 'crowded.json'
    other.write_text(json.dumps(crowded))
    with_crowds = evaluate(val_file, predictions, train_ann_file=str(other))
    assert with_crowds == evaluate(val_file, predictions, train_ann_file=train_file)


@pytest.mark.parametrize('change', [lambda k: k - 1, 'a{}'.format])
def test_ids_of_annotations_may_be_anything(tmp_path, train_file, change):
    """pycocotools takes the id 0 for no match, and can't count with text."""
    truths, predictions = random_case(0)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    options = dict(train_ann_file=train_file)
    want = evaluate(val_file, predictions, **options)
    document = json.loads(Path(val_file).read_text())
    for annotation in document['annotations']:
        annotation['id'] = change(annotation['id'])
    Path(val_file).write_text(json.dumps(document))
    assert evaluate(val_file, predictions, **options) == want


def test_boxes_of_an_unknown_category_or_image_count_for_none(train_file):
    document = json.loads(Path(train_file).read_text())
    before = count_classes(train_file, None)
    for category in (999, [1], None):
        document['annotations'].append(
            {'id': 99, 'image_id': 0, 'category_id': category}
        )
    # What a training leaves out may be in the file that it was given.
    document['images'] += [{}, {'id': [1]}]
    document['categories'] += [{'name': 'owl'}, {'id': 77}]
    known = document['categories'][0]['id']
    for image in (999, [1], None):
        document['annotations'].append(
            {'id': 99, 'image_id': image, 'category_id': known}
        )
    Path(train_file).write_text(json.dumps(document))
    assert count_classes(train_file, None) == before


def test_format_only_writes_the_predictions(tmp_path, train_file):
    truths, predictions = random_case(0)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    prefix = tmp_path / 'found'
    metrics = evaluate(
        val_file,
        predictions,
        train_ann_file=train_file,
        format_only=True,
        outfile_prefix=str(prefix),
    )
    assert metrics == {}
    written = json.loads((tmp_path / 'found.bbox.json').read_text())
    assert len(written) == sum(map(len, predictions))


def test_class_agnostic_proposals_have_no_groups(tmp_path, train_file):
    truths, predictions = random_case(1)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    metrics = evaluate(
        val_file, predictions, train_ann_file=train_file, metric='proposal'
    )
    assert 'coco/AR@100' in metrics
    assert not [key for key in metrics if key.endswith(('few', 'medium', 'many'))]


@pytest.mark.parametrize('several', [False, True])
def test_nothing_found_is_an_ap_of_zero(tmp_path, train_file, several):
    truths, predictions = random_case(2)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    options = {'train_ann_file': train_file, 'use_mp_eval': several, 'classwise': True}
    some = evaluate(val_file, predictions, **options)
    metrics = evaluate(val_file, [[] for _ in truths], **options)
    assert metrics.keys() == some.keys()
    # -1 and NaN where there is no ground truth, such as boxes of that size.
    missing = [key for key, value in some.items() if value == -1 or np.isnan(value)]
    for key, value in metrics.items():
        if key in missing:
            assert value == pytest.approx(some[key], nan_ok=True)
        else:
            assert value == 0, key
    assert 'coco/bbox_mAP_few' in metrics
    assert 'coco/bbox_mAP' not in missing


def test_no_masks_found_is_an_ap_of_zero(tmp_path, train_file):
    truths, _ = random_case(2)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    document = json.loads(Path(val_file).read_text())
    for annotation in document['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    Path(val_file).write_text(json.dumps(document))
    metric = METRICS.build(
        dict(
            type='FewClassCocoMetric',
            ann_file=val_file,
            train_ann_file=train_file,
            metric=['bbox', 'segm'],
        )
    )
    metric.dataset_meta = {'classes': CLASSES}
    empty = {
        'bboxes': torch.zeros(0, 4),
        'scores': torch.zeros(0),
        'labels': torch.zeros(0, dtype=torch.long),
        'masks': torch.zeros(0, 100, 100, dtype=torch.bool),
    }
    for i in range(len(truths)):
        sample = {'img_id': i, 'ori_shape': (100, 100), 'pred_instances': empty}
        metric.process({}, [sample])
    metrics = metric.evaluate(size=len(truths))
    assert metrics['coco/bbox_mAP'] == metrics['coco/segm_mAP'] == 0
    assert metrics['coco/segm_mAP_50_few'] == 0


def test_pycocotools_is_left_as_it_was(tmp_path, train_file, monkeypatch):
    before = COCOeval.accumulate, COCO.loadRes
    truths, predictions = random_case(3)
    val_file = write_annotations(tmp_path / 'val.json', truths)
    evaluate(val_file, predictions, train_ann_file=train_file)
    assert (COCOeval.accumulate, COCO.loadRes) == before

    def fail(self):
        raise RuntimeError('no summary')

    monkeypatch.setattr(COCOeval, 'summarize', fail)
    with pytest.raises(RuntimeError, match='no summary'):
        evaluate(val_file, predictions, train_ann_file=train_file)
    assert (COCOeval.accumulate, COCO.loadRes) == before


@pytest.mark.parametrize(
    ('instances', 'sizes'),
    [([], (0, 0, 0)), ([3], (0, 0, 1)), ([3, 1], (1, 0, 1)), ([3, 1, 2], (1, 1, 1))]
    + [([9, 1, 5, 3], (1, 1, 2)), (list(range(5)), (2, 1, 2)), (range(7), (2, 2, 3))],
)
def test_terciles(instances, sizes):
    counts = {str(i): n for i, n in enumerate(instances)}
    groups = group_classes(dict.fromkeys(counts, 0), counts, 'terciles')
    assert tuple(map(len, groups.values())) == sizes
    flat = [counts[name] for group in groups.values() for name in group]
    assert flat == sorted(instances)


def test_terciles_keep_the_order_of_ties():
    counts = dict.fromkeys('zyxwvu', 4)
    groups = group_classes(counts, counts, 'terciles')
    assert ''.join(sum(groups.values(), [])) == 'zyxwvu'


def test_lvis_rule_counts_images_and_auto_takes_it_where_no_group_is_empty():
    images = {'a': 10, 'b': 11, 'c': 100, 'd': 101}
    instances = {'a': 1000, 'b': 11, 'c': 100, 'd': 101}
    want = {'few': ['a'], 'medium': ['b', 'c'], 'many': ['d']}
    assert group_classes(images, instances, 'lvis') == want
    assert group_classes(images, instances, 'auto') == want
    none_many = {**images, 'd': 99}
    assert group_classes(none_many, instances, 'lvis')['many'] == []
    assert group_classes(none_many, instances, 'auto')['many'] == ['d', 'a']


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (
            {'train_ann_file': 'nowhere.json'},
            FileNotFoundError,
            "train_ann_file: there is no file 'nowhere.json'",
        ),
        ({'groups': 'halves'}, ValueError, "groups: expected one of .*, got 'halves'"),
        ({'groups': 3}, TypeError, 'groups: expected one of .* or a dict, got 3'),
        (
            {'train_ann_file': None, 'groups': 'lvis'},
            ValueError,
            "train_ann_file: groups='lvis' needs the training annotations",
        ),
        (
            {'groups': {'few': 'cat'}},
            TypeError,
            r"groups\['few'\]: expected a list of names, got 'cat'",
        ),
        (
            {'groups': {'few': ['cat', 'dog'], 'many': ['cat']}},
            ValueError,
            r"groups: \['cat'\] stand there more than once",
        ),
        (
            {'groups': {'rare': ['cat']}},
            ValueError,
            r"groups: expected the keys .*, got \['rare'\]",
        ),
    ],
)
def test_bad_options(train_file, options, error, message):
    options = {'train_ann_file': train_file, **options}
    with pytest.raises(error, match=message):
        METRICS.build({'type': 'FewClassCocoMetric', **options})


def test_classes_that_do_not_fit_are_found_before_anything_is_evaluated(
    tmp_path, train_file
):
    other = write_annotations(tmp_path / 'o.json', [[]], ('cat', 'dog', 'emu', 'fox'))

    def learn_of_the_data_set(**options):
        metric = METRICS.build({'type': 'FewClassCocoMetric', **options})
        metric.dataset_meta = {'classes': CLASSES}
        return metric

    unfit = {'groups': {'few': ['owl']}}
    with pytest.raises(
        ValueError,
        match=r"train_ann_file: .*o\.json has no category \['gnu'\]; it has \['cat', ",
    ):
        learn_of_the_data_set(train_ann_file=other)
    with pytest.raises(
        ValueError,
        match=r"groups: the data set has no class \['owl'\]; it has \['cat', ",
    ):
        learn_of_the_data_set(**unfit)
    # Nothing is grouped there.
    learn_of_the_data_set(**unfit, metric='proposal')
    learn_of_the_data_set(**unfit, format_only=True, outfile_prefix=str(tmp_path))
    # A metric may go from one data set to another.
    metric = learn_of_the_data_set(groups={'few': ['gnu']})
    with pytest.raises(ValueError, match="no class .'gnu'.; it has .'cat'.$"):
        metric.dataset_meta = {'classes': ('cat',)}
