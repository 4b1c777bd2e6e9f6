"""Each adapter, on mmdet's own heads with random features."""

import copy
import pickle

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from daal_mmdet.hooks import KalmanCovarianceHook
from daal_mmdet.hooks.adapters import adapter_for

SIZE = 128
BOXES = torch.tensor(
    [[10.0, 20.0, 60.0, 90.0], [50.0, 40.0, 120.0, 110.0], [70.0, 5.0, 90.0, 30.0]]
)
LABELS = torch.tensor([1, 3, 0])


def make_samples(number=2, boxes=BOXES, labels=LABELS):
    samples = []
    for i in range(number):
        shape = (SIZE, SIZE)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                batch_input_shape=shape,
                pad_shape=shape,
                scale_factor=(1.0, 1.0),
            )
        )
        shift = 3.0 * i
        sample.gt_instances = InstanceData(bboxes=boxes + shift, labels=labels)
        samples.append(sample)
    return samples


def make_features(strides, channels, number=2, size=SIZE):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(number, channels, size // s, size // s, generator=generator)
        for s in strides
    ]


def build(config, part='bbox_head', **changes):
    """A head of a shipped config, alone in a model."""
    head = config.model[part]
    key = {'rpn_head': 'rpn', 'bbox_head': None, 'roi_head': 'rcnn'}[part]
    train_cfg, test_cfg = config.model.get('train_cfg'), config.model.get('test_cfg')
    if key:
        train_cfg, test_cfg = train_cfg[key], test_cfg[key]
    changes |= dict(train_cfg=train_cfg, test_cfg=test_cfg)
    if part == 'rpn_head':
        changes['num_classes'] = 1
    for name, value in changes.items():
        head[name] = value
    torch.manual_seed(0)
    return nn.ModuleDict({part: MODELS.build(head)}).train()


class Recorder:
    """Keeps what the loss was called with and which slots the tracker saw."""

    def __init__(self, tracker):
        self.tracker, self.calls = tracker, []
        self.measure, tracker.measure = tracker.measure, self
        self.forward = tracker.loss.forward
        tracker.loss.forward = self.record

    def record(self, pred, target, weight=None, **kwargs):
        self.row = dict(pred=pred.detach(), target=target.detach())
        return self.forward(pred, target, weight, **kwargs)

    def __call__(self, residuals):
        call = self.tracker._running
        rows = slice(None) if call.rows is None else call.rows
        slots = {'slots': call.slots, 'rows': call.rows}
        self.calls.append({k: v[rows] for k, v in self.row.items()} | slots)
        self.measure(residuals)

    def places(self):
        """Level, y, x, template, prediction and target of every positive."""
        for call in self.calls:
            for slot, pred, target in zip(
                call['slots'].tolist(), call['pred'], call['target'], strict=True
            ):
                level = 0
                for templates, height, width in self.tracker.bank.levels:
                    if slot < templates * height * width:
                        break
                    slot -= templates * height * width
                    level += 1
                cell, template = divmod(slot, templates)
                yield level, *divmod(cell, width), template, pred, target


def connect(model, **options):
    hook = KalmanCovarianceHook(**options)
    hook._connect(model)
    return hook, [Recorder(tracker) for tracker in hook.trackers.values()]


SMOOTH_L1 = dict(type='UncertaintyAwareSmoothL1')
GIOU = dict(type='UncertaintyAwareLoss', loss=dict(type='GIoULoss'))
PYRAMID = (8, 16, 32, 64, 128)


@pytest.mark.parametrize(
    ('name', 'part', 'strides'),
    [
        ('retinanet/retinanet_r50_fpn_1x_coco.py', 'bbox_head', PYRAMID),
        (
            'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
            'rpn_head',
            (4, *PYRAMID[:4]),
        ),
    ],
)
def test_anchor_heads_name_the_anchor_that_was_trained(
    shipped_config, name, part, strides
):
    model = build(shipped_config(name), part, loss_bbox=SMOOTH_L1)
    head = model[part]
    hook, (recorder,) = connect(model)
    samples = make_samples()
    if part == 'rpn_head':
        for sample in samples:
            sample.gt_instances.labels = torch.zeros_like(LABELS)
    head.loss(make_features(strides, 256), samples)
    sizes = [(SIZE // s, SIZE // s) for s in strides]
    anchors = head.prior_generator.grid_priors(sizes, device='cpu')
    templates = head.num_base_priors
    assert recorder.tracker.bank.levels == [(templates, *size) for size in sizes]
    found = list(recorder.places())
    assert len(found) > 20
    truths = torch.cat([BOXES, BOXES + 3])
    for level, y, x, template, _, target in found:
        anchor = anchors[level][(y * sizes[level][1] + x) * templates + template]
        decoded = head.bbox_coder.decode(anchor[None], target[None])
        # Only the right anchor turns the target into a box that is there.
        assert (decoded - truths).abs().amax(dim=1).min() < 0.05


def test_rois_are_told_apart_by_level_and_class(shipped_config):
    config = shipped_config('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py')
    for stage in config.model.roi_head.bbox_head:
        stage.loss_bbox = SMOOTH_L1
    model = build(config, 'roi_head')
    hook, recorders = connect(model)
    assert list(hook.trackers) == [
        f'roi_head.bbox_head.{i}.loss_bbox' for i in range(3)
    ]
    # Sides of 20 and of about 120 pixels: levels 0 and 1 by floor(log2(side / 56)).
    boxes = torch.tensor([[4.0, 4.0, 24.0, 24.0], [4.0, 2.0, 124.0, 126.0]])
    samples = make_samples(boxes=boxes, labels=torch.tensor([7, 2]))
    proposals = [
        InstanceData(bboxes=boxes + torch.rand(2, 4) + 3 * i, scores=torch.ones(2))
        for i in range(2)
    ]
    model['roi_head'].loss(make_features((4, 8, 16, 32), 256), proposals, samples)
    for recorder in recorders:
        assert recorder.tracker.bank.levels == [(80, 1, 1)] * 4
        found = list(recorder.places())
        assert {(level, template) for level, *_, template, _, _ in found} == {
            (0, 7),
            (1, 2),
        }


@pytest.mark.parametrize('compiled', [False, True])
def test_a_compiled_box_head_has_the_levels_of_its_extractor(shipped_config, compiled):
    config = shipped_config('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    config.model.roi_head.bbox_head.loss_bbox = SMOOTH_L1
    model = build(config, 'roi_head')
    roi_head = model['roi_head']
    if compiled:
        roi_head.bbox_head = torch.compile(roi_head.bbox_head, backend='eager')
    hook, _ = connect(model)
    (adapter,) = hook._adapters
    assert adapter._num_levels == 4


def test_roi_levels_keep_the_order_of_the_rows(shipped_config):
    config = shipped_config('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    config.model.roi_head.bbox_head.loss_bbox = SMOOTH_L1
    model = build(config, 'roi_head')
    hook, (recorder,) = connect(model)
    head = model['roi_head'].bbox_head
    # sqrt(area) of 40, 112 and 448: levels 0, 1 and 3 by floor(log2(side / 56)).
    sides = torch.tensor([448.0, 40.0, 112.0, 40.0])
    rois = torch.stack([sides * 0, sides * 0, sides * 0, sides, sides], dim=1)
    labels = torch.tensor([5, 6, 80, 8])
    target = torch.rand(4, 4)
    head.loss(
        torch.zeros(4, 81),
        torch.zeros(4, 320, requires_grad=True),
        rois,
        labels,
        torch.ones(4),
        target,
        torch.ones(4, 4),
    )
    found = [(level, template) for level, _, _, template, _, _ in recorder.places()]
    assert found == [(3, 5), (0, 6), (0, 8)]
    targets = [t for *_, t in recorder.places()]
    torch.testing.assert_close(torch.stack(targets), target[[0, 1, 3]])


def test_detr_layers_and_queries(shipped_config):
    config = shipped_config('detr/detr_r50_8xb2-150e_coco.py')
    config.model.bbox_head.loss_bbox = dict(SMOOTH_L1, beta=0, loss_weight=5.0)
    config.model.bbox_head.loss_iou = GIOU
    model = build(config)
    hook, recorders = connect(model)
    head = model['bbox_head']
    for _ in range(2):
        hidden = torch.randn(3, 2, 10, 256)
        scores, preds = head(hidden)
        samples = make_samples()
        head.loss_by_feat(
            scores,
            preds,
            [sample.gt_instances for sample in samples],
            [sample.metainfo for sample in samples],
        )
        for recorder in recorders:
            assert recorder.tracker.bank.levels == [(1, 1, 10)] * 3
            layers = zip(recorder.calls, preds, strict=True)
            for number, (call, layer) in enumerate(layers):
                queries = call['slots'] % 10
                assert (call['slots'] // 10 == number).all()
                assert torch.equal(call['rows'] % 10, queries)
                assert len(queries) == 6
                if recorder is recorders[0]:
                    flat = layer.reshape(-1, 4)[call['rows']]
                    torch.testing.assert_close(call['pred'], flat)
            recorder.calls.clear()
        # A pass that trains nothing, such as that of a validation loss.
        with torch.no_grad():
            head.loss(hidden, make_samples())
    for tracker in hook.trackers.values():
        tracker.step()
        assert tracker.bank.visits.sum() == 36
        assert tracker.bank.levels == [(1, 1, 10)] * 3


def test_batches_without_boxes(shipped_config):
    config = shipped_config('atss/atss_r50_fpn_1x_coco.py')
    config.model.bbox_head.loss_bbox = GIOU
    model = build(config)
    hook, (recorder,) = connect(model)
    empty = make_samples(boxes=BOXES[:0], labels=LABELS[:0])
    features = make_features(PYRAMID, 256)
    for samples in (empty, make_samples(), empty):
        losses = model['bbox_head'].loss(features, samples)
        sum(losses['loss_bbox']).backward()
        recorder.tracker.step()
    assert recorder.tracker.bank.visits.sum() > 0


def test_weights_of_a_batch_have_mean_one_in_each_level(shipped_config):
    model = build(
        shipped_config('retinanet/retinanet_r50_fpn_1x_coco.py'), loss_bbox=SMOOTH_L1
    )
    hook, (recorder,) = connect(model)
    tracker = recorder.tracker
    for _ in range(3):
        model['bbox_head'].loss(make_features(PYRAMID, 256), make_samples())
        tracker.step()
    taken = []
    next_call = tracker.next_call

    def spy(num_rows):
        taken.append(next_call(num_rows))
        return taken[-1]

    tracker.next_call = spy
    model['bbox_head'].loss(make_features(PYRAMID, 256), make_samples())
    assert len(taken) == len(PYRAMID)
    weights = [call.weights for call in taken if len(call.weights)]
    assert len(weights) > 1
    for part in weights:
        torch.testing.assert_close(part.mean(), torch.tensor(1.0))
    assert max(part.std() for part in weights) > 0.1


def test_compiled_heads_track_what_plain_ones_do(shipped_config):
    banks = []
    for compiled in (False, True):
        config = shipped_config('atss/atss_r50_fpn_1x_coco.py')
        config.model.bbox_head.loss_bbox = GIOU
        config.model.bbox_head.stacked_convs = 1
        model = build(config)
        hook, (recorder,) = connect(model)
        loss = model['bbox_head'].loss
        if compiled:
            loss = torch.compile(loss, backend='eager')
        for _ in range(2):
            losses = loss(make_features(PYRAMID, 256), make_samples())
            sum(losses['loss_bbox']).backward()
            recorder.tracker.step()
        banks.append(recorder.tracker.bank)
    plain, other = banks
    assert plain.visits.sum() > 0
    assert torch.equal(other.visits, plain.visits)
    torch.testing.assert_close(other.covariance, plain.covariance)


def test_copies_of_a_model_track_nothing(shipped_config):
    model = build(
        shipped_config('retinanet/retinanet_r50_fpn_1x_coco.py'), loss_bbox=SMOOTH_L1
    )
    hook, (recorder,) = connect(model)
    recorder.tracker.loss.__dict__.pop('forward')
    copied = copy.deepcopy(model)
    assert copied['bbox_head'].loss_bbox.tracker is None
    with pytest.warns(UserWarning, match='nothing tracks a covariance'):
        copied['bbox_head'].loss(make_features(PYRAMID, 256), make_samples())
    assert not recorder.tracker._coming
    assert not recorder.tracker._slots
    pickled = pickle.loads(pickle.dumps(model))
    assert pickled['bbox_head'].loss_bbox.tracker is None
    with pytest.warns(UserWarning, match='nothing tracks a covariance'):
        pickled['bbox_head'].loss(make_features(PYRAMID, 256), make_samples())
    assert not recorder.tracker._coming


def test_detached_heads_are_as_before(shipped_config):
    model = build(
        shipped_config('retinanet/retinanet_r50_fpn_1x_coco.py'), loss_bbox=SMOOTH_L1
    )
    before = set(vars(model['bbox_head']))
    hook, _ = connect(model)
    assert set(vars(model['bbox_head'])) != before
    hook.after_train(None)
    assert set(vars(model['bbox_head'])) == before
    assert not model['bbox_head']._forward_hooks
    assert model['bbox_head'].loss_bbox.tracker is None


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        (
            'free_anchor/freeanchor_r50_fpn_1x_coco.py',
            'an anchor belongs to the bags of several boxes',
        ),
        ('yolof/yolof_r50-c5_8xb8-1x_coco.py', 'returns boxes without their anchors'),
        (
            'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
            'all points of a box are its positives, more or less',
        ),
        (
            'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py',
            'also calls that loss to choose its positives',
        ),
    ],
)
def test_heads_without_an_adapter_are_refused(shipped_config, name, reason):
    config = shipped_config(name)
    config.model.bbox_head.loss_bbox = dict(GIOU, **{'loss': dict(type='IoULoss')})
    model = build(config)
    kind = type(model['bbox_head']).__name__
    with pytest.raises(
        ValueError,
        match=f'bbox_head: .* rows of the box loss of {kind} .*: .*{reason}. Use .*'
        'RTMDetHead',
    ):
        connect(model)


def test_a_roi_with_two_predictions_is_refused():
    loss = dict(SMOOTH_L1, reduction='none')
    head = MODELS.build(
        dict(type='MultiInstanceBBoxHead', num_classes=1, loss_bbox=loss)
    )
    with pytest.raises(ValueError, match='an RoI has two predictions'):
        adapter_for(head, 'roi_head.bbox_head')


def test_losses_that_an_adapter_does_not_know_are_refused(shipped_config):
    config = shipped_config('guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py')
    shape = dict(type='UncertaintyAwareLoss', loss=config.model.bbox_head.loss_shape)
    model = build(config, loss_shape=shape)
    with pytest.raises(
        ValueError,
        match=r'bbox_head\.loss_shape: of GARetinaHead KalmanCovarianceHook serves '
        'loss_bbox; use a plain loss as loss_shape',
    ):
        connect(model)


def test_residuals_of_both_terms_of_pisa_are_measured_once(shipped_config):
    config = shipped_config('pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py')
    config.model.roi_head.bbox_head.loss_bbox = SMOOTH_L1
    model = build(config, 'roi_head')
    hook, (recorder,) = connect(model)
    proposals = [
        InstanceData(bboxes=BOXES + 3 * i, scores=torch.ones(3)) for i in (0, 1)
    ]
    losses = model['roi_head'].loss(
        make_features((4, 8, 16, 32), 256), proposals, make_samples()
    )
    first, second = recorder.calls
    assert losses['loss_carl'] > 0
    assert torch.equal(first['slots'], second['slots'])
    for key in ('pred', 'target'):
        torch.testing.assert_close(first[key], second[key])
    recorder.tracker.step()
    assert recorder.tracker.bank.visits.sum() == len(first['slots'])


def test_dynamic_rcnn_adapts_the_loss(shipped_config):
    config = shipped_config('dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py')
    config.model.train_cfg.rcnn.dynamic_rcnn.update_iter_interval = 2
    config.model.roi_head.bbox_head.loss_bbox = dict(SMOOTH_L1, beta=1.0)
    model = build(config, 'roi_head')
    hook, (recorder,) = connect(model)
    for _ in range(2):
        proposals = [
            InstanceData(bboxes=BOXES + 3 * i + 2, scores=torch.ones(3)) for i in (0, 1)
        ]
        model['roi_head'].loss(
            make_features((4, 8, 16, 32), 256), proposals, make_samples()
        )
        recorder.tracker.step()
    assert 0 < model['roi_head'].bbox_head.loss_bbox.beta < 1
    assert recorder.tracker.bank.visits.sum() > 0


def test_subclasses_keep_the_adapter_unless_they_change_the_loss():
    from mmdet.models.dense_heads import RetinaHead

    class Deeper(RetinaHead):
        def forward(self, x):
            return super().forward(x)

    class Changed(RetinaHead):
        def loss_by_feat_single(self, *args, **kwargs):
            return super().loss_by_feat_single(*args, **kwargs)

    options = dict(num_classes=3, in_channels=8)
    assert adapter_for(Deeper(**options), 'head')
    with pytest.raises(ValueError, match='rows of the box loss of Changed'):
        adapter_for(Changed(**options), 'head')
