"""Every row that a loss gets, traced back through its gradient to where it came from.

The predictions of a row depend on one cell of the head's maps, in the channels of one
anchor, or on one query: there its gradient is not zero. The slot must name that place,
whatever the head has made of its outputs on the way to the loss.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import paa_head
from mmdet.registry import MODELS
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MessageHub
from torch import nn

from daal_mmdet.hooks import KalmanCovarianceHook
from tests.hooks.test_adapters import (
    LABELS,
    PYRAMID,
    SIZE,
    build,
    make_features,
    make_samples,
)

FROM_4 = (4, *PYRAMID[:4])
TO_32 = PYRAMID[:3]


class Tracer:
    """Keeps the predictions of every call of a loss with the slots of their rows."""

    def __init__(self, tracker, model):
        self.tracker, self.calls, self.maps = tracker, [], []
        self.inner = tracker.loss.forward
        tracker.loss.forward = self.trace
        head = model.get_submodule(tracker.name.rpartition('.')[0])
        head.register_forward_hook(self.see)

    def see(self, head, args, outputs):
        self.maps = [
            list(output)
            for output in outputs
            if not torch.is_tensor(output) and output[0] is not None
        ]

    def trace(self, pred, *args, **kwargs):
        value = self.inner(pred, *args, **kwargs)
        if self.tracker._running is not None:
            self.calls.append((pred, self.tracker._running))
        return value

    def rows(self, most=40):
        """Predictions of the positives of each call, with their slots."""
        for pred, call in self.calls:
            rows = torch.arange(len(pred)) if call.rows is None else call.rows
            assert len(rows) == len(call.slots)
            for i in range(0, len(rows), -(-len(rows) // most) or 1):
                yield pred[rows[i]], int(call.slots[i])


def trace_losses(model):
    hook = KalmanCovarianceHook()
    hook._connect(model)
    return [Tracer(tracker, model) for tracker in hook.trackers.values()]


def touched(row, tensors):
    """Where the gradient of a row is not zero: the number of a tensor and an index."""
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0])
    grads = torch.autograd.grad(
        row @ weights, tensors, retain_graph=True, allow_unused=True
    )
    for number, grad in enumerate(grads):
        if grad is not None:
            for index in grad.nonzero().tolist():
                yield number, index


def place_of(slot, levels):
    """Level, row, column and template of a slot."""
    for level, (templates, height, width) in enumerate(levels):
        if slot < templates * height * width:
            cell, template = divmod(slot, templates)
            return level, *divmod(cell, width), template
        slot -= templates * height * width
    raise AssertionError(f'no slot {slot}')


def assert_rows_come_from_their_slots(tracer, scale=1):
    levels = tracer.tracker.bank.levels
    found = 0
    for row, slot in tracer.rows():
        # Boxes of Cascade RPN, and VFNet's last, depend on earlier outputs too.
        maps, indices = next(
            (maps, indices)
            for maps in reversed(tracer.maps)
            if (indices := list(touched(row, maps)))
        )
        places = set()
        for level, (_, channel, y, x) in indices:
            of_anchor = maps[level].shape[1] // levels[level][0]
            places.add((level, y // scale, x // scale, channel // of_anchor))
        assert places == {place_of(slot, levels)}
        found += 1
    assert found >= 6


class Halves:
    """In place of scikit-learn's Gaussian mixture: the lower half is the first part."""

    def __init__(self, *args, **kwargs):
        pass

    def fit(self, values):
        pass

    def predict(self, values):
        return (np.arange(len(values)) >= len(values) / 2).astype(int)

    def score_samples(self, values):
        return values[:, 0]


@pytest.fixture
def trace(shipped_config, monkeypatch):
    """Run the losses of a shipped head once, all its box losses being tracked."""
    # TOOD asks for the epoch; PAA needs scikit-learn.
    hub = MessageHub.get_current_instance()
    monkeypatch.setitem(hub.runtime_info, 'epoch', 0)
    monkeypatch.setattr(paa_head, 'skm', SimpleNamespace(GaussianMixture=Halves))

    def run(name, strides, part='bbox_head', size=SIZE, train=None, **changes):
        config = shipped_config(name)
        config.model.train_cfg = config.model.get('train_cfg') or {}
        for head in config.model[part].get('stages', [config.model[part]]):
            head.update(copy.deepcopy(changes))
            for key in ('loss_bbox', 'loss_bbox_refine', 'loss_l1'):
                if key in head or key == 'loss_l1' and 'yolox' in name:
                    inner = head.get(key, dict(type='L1Loss', reduction='sum'))
                    head[key] = dict(type='UncertaintyAwareLoss', loss=inner)
        model = build(config, part)
        head = model[part]
        # FSAF's boxes must not be empty.
        head.init_weights()
        if hasattr(head, 'use_l1'):
            head.use_l1 = True
        tracers = trace_losses(model)
        samples = make_samples(labels=LABELS * 0 if part == 'rpn_head' else LABELS)
        for sample in samples if '-ins' in name else ():
            masks = np.ones((len(LABELS), size, size), dtype=np.uint8)
            sample.gt_instances.masks = BitmapMasks(masks, size, size)
        channels = config.model[part].get('in_channels', 256)
        features = make_features(strides, channels, size=size)
        if train is None:
            head.loss(features, samples)
        else:
            train(head, features, samples, tracers)
        return tracers

    return run


@pytest.mark.parametrize(
    ('name', 'strides', 'options'),
    [
        ('retinanet/retinanet_r50_fpn_1x_coco.py', PYRAMID, {}),
        ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', FROM_4, dict(part='rpn_head')),
        (
            'guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py',
            PYRAMID,
            {},
        ),
        (
            'guided_anchoring/ga-rpn_r50-caffe_fpn_1x_coco.py',
            FROM_4,
            dict(part='rpn_head'),
        ),
        (
            'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
            FROM_4,
            dict(part='rpn_head'),
        ),
        ('fsaf/fsaf_r50_fpn_1x_coco.py', PYRAMID, {}),
        ('atss/atss_r50_fpn_1x_coco.py', PYRAMID, {}),
        ('gfl/gfl_r50_fpn_1x_coco.py', PYRAMID, {}),
        ('tood/tood_r50_fpn_1x_coco.py', PYRAMID, {}),
        # Its convolutions want some space.
        ('ddod/ddod_r50_fpn_1x_coco.py', PYRAMID, dict(size=384)),
        ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', TO_32, {}),
        ('rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', TO_32, {}),
        ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', PYRAMID, {}),
        ('condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py', PYRAMID, {}),
        ('boxinst/boxinst_r50_fpn_ms-90k_coco.py', PYRAMID, {}),
        ('foveabox/fovea_r50_fpn_4xb4-1x_coco.py', PYRAMID, {}),
        ('vfnet/vfnet_r50_fpn_1x_coco.py', PYRAMID, {}),
        ('pisa/retinanet-r50_fpn_pisa_1x_coco.py', PYRAMID, {}),
        ('yolact/yolact_r50_1xb8-55e_coco.py', PYRAMID, {}),
        ('yolact/yolact_r50_1xb8-55e_coco.py', PYRAMID, dict(use_ohem=False)),
        ('yolox/yolox_tiny_8xb8-300e_coco.py', TO_32, {}),
        ('paa/paa_r50_fpn_1x_coco.py', PYRAMID, {}),
    ],
    ids=lambda value: value.split('/')[1][:-3] if isinstance(value, str) else '',
)
def test_cells_and_anchors_of_dense_heads(trace, name, strides, options):
    tracers = trace(name, strides, **options)
    size = options.get('size', SIZE)
    grids = [(size // s, size // s) for s in strides]
    for tracer in tracers:
        assert [level[1:] for level in tracer.tracker.bank.levels] == grids
        assert_rows_come_from_their_slots(tracer)


def test_larger_maps_are_laid_over_the_first(trace):
    def train(head, features, samples, tracers):
        head.loss(features, samples)
        tracers[0].calls.clear()
        larger = [nn.functional.interpolate(part, scale_factor=2) for part in features]
        size = (2 * SIZE, 2 * SIZE)
        for sample in samples:
            sample.set_metainfo(dict(img_shape=size, pad_shape=size))
            sample.gt_instances.bboxes *= 2
        head.loss(larger, samples)

    (tracer,) = trace('retinanet/retinanet_r50_fpn_1x_coco.py', PYRAMID, train=train)
    assert tracer.tracker.bank.levels[0] == (9, SIZE // 8, SIZE // 8)
    assert_rows_come_from_their_slots(tracer, scale=2)


def test_a_student_trains_the_cells_that_its_teacher_chose(trace):
    def train(head, features, samples, tracers):
        truths = [sample.gt_instances for sample in samples]
        metas = [sample.metainfo for sample in samples]
        with torch.no_grad():
            chosen = head.get_label_assignment(*head(features), truths, metas)
        head.loss(features, chosen, samples)

    name = 'lad/lad_r101-paa-r50_fpn_2xb8_coco_1x.py'
    (tracer,) = trace(name, PYRAMID, train=train)
    assert_rows_come_from_their_slots(tracer)


def test_residuals_of_a_second_term_are_weighted_and_not_measured(trace):
    (tracer,) = trace('pisa/retinanet-r50_fpn_pisa_1x_coco.py', PYRAMID)
    (_, first), (_, second) = tracer.calls
    assert torch.equal(first.slots, second.slots)
    tracer.tracker.step()
    assert tracer.tracker.bank.visits.sum() == len(first.slots)


# --- queries --------------------------------------------------------------------------
LAYERS, QUERIES, DENOISING, DENSE = 3, 10, 6, 5


def run_queries(config, cache=None):
    """Losses of leaves (layer, image, query, 4) in place of a decoder's boxes."""
    dense = DENSE if cache else 0
    head = config.model.bbox_head
    head.loss_bbox = dict(type='UncertaintyAwareSmoothL1', beta=0)
    head.loss_iou = dict(type='UncertaintyAwareLoss', loss=dict(type='GIoULoss'))
    head.update(num_pred_layer=LAYERS + 1, share_pred_layer=False, as_two_stage=True)
    train_cfg = config.model.train_cfg
    head = MODELS.build(dict(head, train_cfg=train_cfg)).train()
    if cache:
        head.cache_dict = cache
    tracers = trace_losses(nn.ModuleDict({'bbox_head': head}))
    generator = torch.Generator().manual_seed(0)

    def boxes(*shape):
        centre = torch.rand(*shape, 4, generator=generator) * 0.4 + 0.3
        return (centre * torch.tensor([1.0, 1.0, 0.5, 0.5])).requires_grad_()

    total = DENOISING + QUERIES + dense
    preds, proposals = boxes(LAYERS, 2, total), boxes(2, QUERIES)
    classes = head.cls_out_channels
    scores = torch.randn(LAYERS, 2, total, classes, generator=generator)
    samples = make_samples()
    # One group: each of the three boxes, right and wrong.
    dn_meta = dict(
        num_denoising_queries=DENOISING,
        num_denoising_groups=1,
        num_dense_queries=dense,
    )
    head.loss_by_feat(
        scores,
        preds,
        torch.randn(2, QUERIES, classes, generator=generator),
        proposals,
        [sample.gt_instances for sample in samples],
        [sample.metainfo for sample in samples],
        dn_meta,
    )
    return tracers, preds, proposals


def assert_queries_are_named(tracers, preds, proposals):
    for tracer in tracers:
        assert tracer.tracker.bank.levels == [(1, 1, QUERIES)] * (LAYERS + 1)
        found = set()
        for row, slot in tracer.rows():
            level, _, query, _ = place_of(slot, tracer.tracker.bank.levels)
            places = set()
            for number, index in touched(row, [preds, proposals]):
                if number == 0:
                    layer, image, place, _ = index
                    places.add((layer, image, place - DENOISING))
                else:
                    image, place, _ = index
                    places.add((LAYERS, image, place))
            ((layer, image, place),) = places
            assert (layer, place) == (level, query)
            found.add((layer, image))
        # Every layer of both images, and the proposals of the encoder.
        assert len(found) == 2 * (LAYERS + 1)


def test_queries_of_dino(shipped_config):
    config = shipped_config('dino/dino-4scale_r50_8xb2-12e_coco.py')
    assert_queries_are_named(*run_queries(config))


def test_queries_of_ddq_are_those_that_were_distinct(shipped_config):
    config = shipped_config('ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py')
    heads = 2
    kept = torch.ones(LAYERS, 2, QUERIES, dtype=torch.bool)
    # Images lose other and not equally many queries; one none.
    kept[0, 0, [0, 3]] = False
    kept[0, 1, [1, 2, 4, 7]] = False
    kept[1, 0, [5]] = False
    masks = [
        mask.repeat_interleave(heads, 0)[:, None].expand(-1, QUERIES, -1)
        for mask in kept
    ]
    cache = dict(distinct_query_mask=masks, num_heads=heads)
    tracers, preds, proposals = run_queries(config, cache)
    assert_queries_are_named(tracers, preds, proposals)


def test_cells_of_the_encoder_of_deformable_detr_share_a_slot(shipped_config):
    name = 'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
    config = shipped_config(name)
    head = config.model.bbox_head
    head.loss_bbox = dict(type='UncertaintyAwareSmoothL1', beta=0)
    head.update(num_pred_layer=LAYERS + 1, share_pred_layer=False, as_two_stage=True)
    head = MODELS.build(dict(head, train_cfg=config.model.train_cfg)).train()
    (tracer,) = trace_losses(nn.ModuleDict({'bbox_head': head}))
    references = [torch.rand(2, QUERIES, 4) for _ in range(LAYERS)]
    # Batches of two sizes.
    for cells in (40, 25):
        head.loss(
            torch.randn(LAYERS, 2, QUERIES, head.embed_dims),
            references,
            torch.randn(2, cells, head.cls_out_channels),
            torch.rand(2, cells, 4),
            make_samples(),
        )
        bank = tracer.tracker.bank
        assert bank.levels == [(1, 1, QUERIES)] * LAYERS + [(1, 1, 1)]
        *layers, encoder = [call.slots for _, call in tracer.calls[-LAYERS - 1 :]]
        assert encoder.tolist() == [LAYERS * QUERIES] * 6
        for layer, slots in enumerate(layers):
            assert bank.level_of(slots).tolist() == [layer] * 6


def test_queries_of_a_stage_of_sparse_rcnn(shipped_config):
    config = shipped_config('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py')
    stage = config.model.roi_head.bbox_head[0]
    stage.loss_bbox = dict(type='UncertaintyAwareSmoothL1', beta=0)
    stage.loss_iou = dict(type='UncertaintyAwareLoss', loss=stage.loss_iou)
    head = MODELS.build(stage).train()
    tracers = trace_losses(nn.ModuleDict({'bbox_head': head}))
    truth = torch.tensor([[10.0, 20.0, 60.0, 90.0], [50.0, 40.0, 120.0, 110.0]])
    sampled = []
    for positives in ([7, 2], [9, 0]):
        inds = torch.tensor(positives)
        others = torch.tensor([i for i in range(QUERIES) if i not in positives])
        sampled.append(
            SimpleNamespace(
                pos_inds=inds,
                neg_inds=others,
                pos_priors=truth,
                neg_priors=truth.new_zeros(len(others), 4),
                pos_gt_bboxes=truth,
                pos_gt_labels=torch.tensor([1, 3]),
            )
        )
    pred = (torch.rand(2 * QUERIES, 4) * 100).requires_grad_()
    head.loss_and_target(
        torch.randn(2 * QUERIES, 80),
        pred,
        sampled,
        SimpleNamespace(pos_weight=-1),
        torch.full((2, QUERIES, 4), 128.0),
    )
    for tracer in tracers:
        assert tracer.tracker.bank.levels == [(1, 1, QUERIES)]
        found = []
        for row, slot in tracer.rows():
            (place,) = {index[0] for _, index in touched(row, [pred])}
            assert place % QUERIES == slot
            found.append(place)
        assert found == [2, 7, QUERIES, QUERIES + 9]
