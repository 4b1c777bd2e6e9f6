import importlib
import json
import sys

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS

from daal_mmdet.evaluation.few_class_lvis_metric import strongest_of_each_class
from tests import oracles

pytest.importorskip('lvis', reason='the lvis package is not installed')

GROUP_OF = {3: 'r', 5: 'c', 8: 'f', 13: 'f', 21: 'r'}
IDS = list(GROUP_OF)
SIZE = 100


def random_boxes(rng, n):
    return np.c_[rng.uniform(0, 50, (n, 2)), rng.uniform(8, 40, (n, 2))].round(1)


def random_document(rng, images=5):
    """LVIS ground truth; category 21 is annotated nowhere, ids are not 1..C."""
    documents = {'images': [], 'annotations': [], 'categories': []}
    for i in range(images):
        present = rng.choice(IDS[:-1], size=2, replace=False).tolist()
        absent = [c for c in IDS if c not in present]
        documents['images'].append(
            {
                'id': 10 + i,
                'width': SIZE,
                'height': SIZE,
                'coco_url': f'http://images.cocodataset.org/val2017/{i}.jpg',
                'neg_category_ids': absent[:1],
                'not_exhaustive_category_ids': present[:1] if i % 2 else [],
            }
        )
        for category in present:
            for box in random_boxes(rng, 2):
                x, y, w, h = map(float, box)
                documents['annotations'].append(
                    {
                        'id': len(documents['annotations']) + 1,
                        'image_id': 10 + i,
                        'category_id': category,
                        'bbox': [x, y, w, h],
                        'area': w * h,
                        'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )
    documents['categories'] = [
        {'id': c, 'name': f'class_{c}', 'frequency': GROUP_OF[c]} for c in IDS
    ]
    return documents


def random_detections(rng, document, per_image=12):
    """Shifted copies of the truth, and boxes of chance."""
    detections = []
    for image in document['images']:
        truth = [a for a in document['annotations'] if a['image_id'] == image['id']]
        for _ in range(per_image):
            if truth and rng.random() < 0.6:
                chosen = truth[rng.integers(len(truth))]
                box = np.array(chosen['bbox']) + rng.normal(0, 1.5, 4)
                category = chosen['category_id']
            else:
                box, category = random_boxes(rng, 1)[0], IDS[rng.integers(len(IDS))]
            detections.append(
                {
                    'image_id': image['id'],
                    'category_id': category,
                    'bbox': box.tolist(),
                    'score': float(rng.random()),
                }
            )
    return detections


def evaluate(document, detections, tmp_path, masks=False, **options):
    path = tmp_path / 'lvis.json'
    path.write_text(json.dumps(document))
    ids = [c['id'] for c in document['categories']]
    metric = METRICS.build(
        {'type': 'FewClassLVISMetric', 'ann_file': str(path), **options}
    )
    metric.dataset_meta = {'classes': [c['name'] for c in document['categories']]}
    for image in document['images']:
        found = [d for d in detections if d['image_id'] == image['id']]
        boxes = torch.tensor([d['bbox'] for d in found], dtype=torch.float64)
        boxes = boxes.reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        predicted = {
            'bboxes': boxes,
            'scores': torch.tensor([d['score'] for d in found], dtype=torch.float64),
            'labels': torch.tensor(
                [ids.index(d['category_id']) for d in found], dtype=torch.long
            ),
        }
        if masks:
            canvas = torch.zeros(len(found), SIZE, SIZE, dtype=torch.bool)
            for k, (x1, y1, x2, y2) in enumerate(boxes.round().long().tolist()):
                canvas[k, max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
            predicted['masks'] = canvas
        metric.process(
            {},
            [
                {
                    'img_id': image['id'],
                    'ori_shape': (SIZE, SIZE),
                    'pred_instances': predicted,
                }
            ],
        )
    return metric.evaluate(len(document['images']))


def test_each_class_has_its_own_ap_whatever_its_id(tmp_path):
    rng = np.random.default_rng(4)
    document = random_document(rng)
    detections = random_detections(rng, document)
    want = evaluate(document, detections, tmp_path, classwise=True)
    document['categories'].reverse()
    got = evaluate(document, detections, tmp_path, classwise=True)
    assert got == pytest.approx(want, nan_ok=True)
    for c in IDS:
        ap = oracles.lvis_average_precision(document, detections, 'standard', [c])
        # The oracle says -1 where there is no ground truth, LVISMetric NaN.
        value = got[f'lvis/class_{c}_precision']
        assert np.nan_to_num(value, nan=-1) == pytest.approx(ap, abs=6e-4)
    assert len({got[f'lvis/class_{c}_precision'] for c in IDS}) == len(IDS)


@pytest.mark.parametrize('seed', range(3))
def test_all_three_ap_equal_the_oracle(seed, tmp_path):
    rng = np.random.default_rng(seed)
    document = random_document(rng)
    detections = random_detections(rng, document)
    # So few of a class that the limit bites.
    got = evaluate(document, detections, tmp_path, dets_per_class=8)
    members = {None: IDS}
    for group in 'rcf':
        members[group] = [c for c in IDS if GROUP_OF[c] == group]
    for group, classes in members.items():
        name = f'AP{group or ""}'
        for mode, key in (
            ('standard', f'lvis/bbox_{name}'),
            ('fixed', f'lvis/bbox_{name}_fixed'),
            ('pool', f'lvis/bbox_{name}_pool'),
        ):
            want = oracles.lvis_average_precision(
                document, detections, mode, classes, limit=8
            )
            assert got[key] == pytest.approx(want, abs=6e-4), key
    assert got['lvis/bbox_AP_fixed'] != got['lvis/bbox_AP_pool']


def test_fixed_ap_has_no_limit_an_image_and_standard_ap_has(tmp_path):
    rng = np.random.default_rng(0)
    document = random_document(rng, images=1)
    (truth, *_) = document['annotations']
    absent = document['images'][0]['neg_category_ids'][0]
    crowd = [
        {'image_id': 10, 'category_id': absent, 'bbox': [1, 1, 9, 9], 'score': 0.9}
    ] * 300
    weak = {**truth, 'score': 0.1}
    got = evaluate(document, [*crowd, weak], tmp_path)
    assert got['lvis/bbox_AP'] == 0
    assert got['lvis/bbox_AP_fixed'] > 0.2
    # 300 stronger mistakes of another class stand before the only hit.
    assert 0 < got['lvis/bbox_AP_pool'] < 0.01


def test_masks_are_evaluated_too(tmp_path):
    rng = np.random.default_rng(3)
    document = random_document(rng)
    for annotation in document['annotations']:
        # Whole pixels, so that boxes and masks overlap alike.
        x, y, w, h = annotation['bbox'] = [float(round(v)) for v in annotation['bbox']]
        annotation['area'] = w * h
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    detections = [
        {**d, 'bbox': [float(max(round(v), 1)) for v in d['bbox']]}
        for d in random_detections(rng, document)
    ]
    got = evaluate(document, detections, tmp_path, masks=True, metric=['bbox', 'segm'])
    for name in ('AP', 'AP_fixed', 'AP_pool', 'APf_pool'):
        assert got[f'lvis/segm_{name}'] == pytest.approx(
            got[f'lvis/bbox_{name}'], abs=0.02
        )
        assert got[f'lvis/segm_{name}'] > 0.05


def test_nothing_found_is_an_ap_of_zero(tmp_path):
    document = random_document(np.random.default_rng(0))
    document['annotations'] = [
        a for a in document['annotations'] if a['category_id'] in (8, 13)
    ]
    got = evaluate(document, [], tmp_path)
    assert got['lvis/bbox_AP'] == got['lvis/bbox_APf_pool'] == 0
    assert got['lvis/bbox_APr'] == got['lvis/bbox_APc_fixed'] == -1
    some = evaluate(
        document, random_detections(np.random.default_rng(0), document), tmp_path
    )
    assert got.keys() == some.keys()


def test_numpy_is_left_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    document = random_document(rng)
    evaluate(document, random_detections(rng, document), tmp_path)
    assert importlib.import_module('lvis.eval').np is np
    assert ('float' in vars(np)) == (np.lib.NumpyVersion(np.__version__) < '1.24.0')


def test_strongest_of_each_class():
    detections = [
        {'category_id': c, 'score': s}
        for c, s in [(1, 0.1), (2, 0.3), (1, 0.5), (1, 0.2), (2, 0.3)]
    ]
    kept = strongest_of_each_class(detections, 2)
    assert [(d['category_id'], d['score']) for d in kept] == [
        (1, 0.5),
        (1, 0.2),
        (2, 0.3),
        (2, 0.3),
    ]


@pytest.mark.parametrize('value', [0, -1])
def test_limit_must_be_positive(value):
    with pytest.raises(ValueError, match=f'dets_per_class: .* >= 1, got {value}'):
        METRICS.build({'type': 'FewClassLVISMetric', 'dets_per_class': value})


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lvis', None)
    with pytest.raises(ImportError, match='needs the package lvis.*pip install lvis'):
        METRICS.build({'type': 'FewClassLVISMetric'})


def test_annotations_may_be_numbered_from_0(tmp_path):
    """lvis takes the id 0 for no match."""
    rng = np.random.default_rng(3)
    document = random_document(rng)
    detections = random_detections(rng, document)
    want = evaluate(document, detections, tmp_path)
    for annotation in document['annotations']:
        annotation['id'] -= 1
    assert evaluate(document, detections, tmp_path) == want
