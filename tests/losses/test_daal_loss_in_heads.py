"""DAALLoss in mmdet's own heads: what it refuses, learns and counts."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, FocalLoss
from mmdet.models.task_modules import OHEMSampler
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from daal_mmdet.losses import DAALFocalLoss, DAALLoss
from daal_mmdet.losses.head_rules import HeadRules

DAAL = {'type': 'DAALLoss', 'bnm_weight': 0.05}
SIGMOID = DAAL | {'use_sigmoid': True}
ROI_HEAD = {
    'type': 'Shared2FCBBoxHead',
    'in_channels': 4,
    'fc_out_channels': 8,
    'roi_feat_size': 2,
    'num_classes': 5,
}
SIZE = 64


def build(config):
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(copy.deepcopy(config))).train()


def dense(kind, **changes):
    return build({'type': kind, 'num_classes': 4, 'in_channels': 8, **changes})


# --- refused while the model is built -------------------------------------------------
CENTERNET = {
    'type': 'CenterNetHead',
    'in_channels': 8,
    'feat_channels': 8,
    'num_classes': 4,
}
CORNERNET = {'type': 'CornerHead', 'in_channels': 8, 'num_classes': 4}
UPDATE = {'type': 'CenterNetUpdateHead', 'in_channels': 8, 'num_classes': 4}
ANCHOR = {'type': 'RetinaHead', 'in_channels': 8, 'num_classes': 4}
TOOD = {
    'type': 'TOODHead',
    'in_channels': 8,
    'num_classes': 4,
    'train_cfg': {
        'initial_epoch': 4,
        'initial_assigner': {'type': 'ATSSAssigner', 'topk': 9},
        'assigner': {'type': 'TaskAlignedAssigner', 'topk': 13},
        'alpha': 1,
        'beta': 6,
    },
}


@pytest.mark.parametrize(
    ('head', 'key', 'message'),
    [
        (CENTERNET, 'loss_center_heatmap', 'regresses Gaussian heat maps'),
        (CORNERNET, 'loss_heatmap', 'regresses Gaussian heat maps'),
        (UPDATE, 'loss_cls', 'heat maps .*; keep GaussianFocalLoss'),
        (dict(ANCHOR, type='FreeAnchorRetinaHead'), 'loss_cls', 'itself and never'),
        (dict(UPDATE, type='AutoAssignHead'), 'loss_cls', 'itself and never calls'),
        ({'type': 'CLRHead'}, 'cls_loss', 'tells background from lane by the labels'),
        (
            {'type': 'MultiInstanceBBoxHead', 'num_classes': 1},
            'loss_cls',
            'tells background from person by the labels 0 and 1, while DAALLoss has',
        ),
        (dict(UPDATE, type='FCOSHead'), 'loss_centerness', 'keep the loss of the base'),
        (dict(UPDATE, type='YOLOXHead'), 'loss_obj', 'keep the loss of the base'),
        (dict(UPDATE, type='FCOSHead'), 'loss_bbox', 'DAALLoss is a loss of C classes'),
    ],
)
def test_heads_that_can_not_have_it_say_why(head, key, message):
    # mmengine puts the class in front of the message.
    attribute = {'cls_loss': 'cls_criterion'}.get(key, key)
    place = rf'{head["type"]}\.{attribute}: .*{message}'
    with pytest.raises(ValueError, match=place):
        build({**head, key: SIGMOID})


def test_heads_without_the_argument_are_refused_by_mmdet():
    with pytest.raises(TypeError, match="unexpected keyword argument 'loss_cls'"):
        build({'type': 'SSDHead', 'num_classes': 4, 'loss_cls': DAAL})


@pytest.mark.parametrize(
    ('head', 'loss', 'message'),
    [
        # The head reads its config, where DAALFocalLoss says nothing.
        (
            ANCHOR,
            {'type': 'DAALFocalLoss'},
            'reads use_sigmoid .* a missing one for False, .* use_sigmoid=True; write',
        ),
        (
            dict(UPDATE, type='YOLOXHead'),
            DAAL,
            'has no column for the background; write use_sigmoid=True .*=False',
        ),
        (
            {**ROI_HEAD, 'type': 'DoubleConvFCBBoxHead', 'num_convs': 1, 'num_fcs': 1},
            SIGMOID,
            'has a column for the background',
        ),
        (
            dict(ANCHOR, loss_cls=None),
            dict(SIGMOID, num_classes=80),
            'num_classes=80 of the loss disagrees with num_classes=4 of the head',
        ),
        (ROI_HEAD, dict(DAAL, num_classes=6), 'num_classes=6 .* num_classes=5 of the'),
        (
            TOOD,
            SIGMOID,
            'TOODHead.loss_cls: .* probabilities; write activated=True in the config',
        ),
        (
            dict(TOOD, initial_loss_cls=SIGMOID),
            dict(SIGMOID, activated=True),
            'TOODHead.initial_loss_cls: .* probabilities; write activated=True',
        ),
    ],
)
def test_disagreement_with_the_head_is_refused(head, loss, message):
    with pytest.raises(ValueError, match=message):
        build({**head, 'loss_cls': loss})


@pytest.mark.parametrize(
    ('head', 'loss'),
    [
        (ANCHOR, SIGMOID),
        (ANCHOR, DAAL),
        (dict(UPDATE, type='YOLOXHead'), {'type': 'DAALFocalLoss'}),
        (ROI_HEAD, DAAL),
        (ROI_HEAD, SIGMOID),
    ],
)
def test_the_number_of_classes_comes_from_the_head(head, loss):
    if head is not ROI_HEAD and loss['type'] == 'DAALFocalLoss':
        loss = dict(loss, use_sigmoid=True)
    loss = build({**head, 'loss_cls': loss}).loss_cls
    assert loss.num_classes == head['num_classes']


def test_many_classes_make_room_for_themselves():
    loss = build({**ROI_HEAD, 'num_classes': 3000, 'loss_cls': DAAL}).loss_cls
    pred = torch.zeros(6, 3001, requires_grad=True)
    for _ in range(2):
        loss(pred, torch.tensor([2999, 2999, 2999, 0, 3000, 3000])).backward()
    share = loss.class_balance.share
    assert share.argmax() == 2999
    assert share[2999] > share[0] > share[5]
    # Checkpoints of models with fewer classes keep their shape.
    assert len(build({**ROI_HEAD, 'loss_cls': DAAL}).loss_cls.class_balance.share) == (
        2048
    )


# --- a sigmoid in a box head ----------------------------------------------------------
def roi_inputs(num_classes=5):
    torch.manual_seed(1)
    labels = torch.tensor([0, 1, num_classes, 2, num_classes, 0])
    return torch.randn(6, 4, 2, 2), labels


@pytest.mark.parametrize('sigmoid', [False, True])
def test_box_heads_have_the_columns_that_the_loss_needs(sigmoid):
    head = build({**ROI_HEAD, 'loss_cls': dict(DAAL, use_sigmoid=sigmoid)})
    features, labels = roi_inputs()
    scores, boxes = head(features)
    assert scores.shape == (6, 5 if sigmoid else 6)
    losses = head.loss(
        scores,
        boxes,
        torch.rand(6, 5),
        labels,
        torch.ones(6),
        torch.rand(6, 4),
        torch.ones(6, 4),
    )
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert head.fc_cls.weight.grad.abs().sum() > 0
    assert ('acc_classes' in losses) == sigmoid


def test_scores_and_accuracy_of_a_sigmoid_box_head():
    head = build({**ROI_HEAD, 'loss_cls': SIGMOID})
    logits = torch.tensor([[4.0, -4.0, -4.0, -4.0, -4.0], [-4.0, -4.0, 3.0, -4.0, 4.0]])
    scores = head.loss_cls.get_activation(logits)
    torch.testing.assert_close(scores[:, :5], logits.sigmoid())
    assert scores.shape == (2, 6)
    assert (scores[:, 5] >= 0).all()
    accuracy = head.loss_cls.get_accuracy(logits, torch.tensor([0, 2]))
    assert accuracy['acc_classes'].item() == 50.0
    # Background rows are not in it.
    accuracy = head.loss_cls.get_accuracy(logits, torch.tensor([0, 5]))
    assert accuracy['acc_classes'].item() == 100.0
    for labels in (torch.tensor([5, 5]), torch.tensor([-100, 5])):
        accuracy = head.loss_cls.get_accuracy(logits, labels)
        assert accuracy['acc_classes'].item() == 0.0
    empty = head.loss_cls.get_accuracy(logits[:0], labels[:0])
    assert empty['acc_classes'].item() == 0.0


def test_a_compiled_loss_keeps_what_it_knows_of_its_head():
    head = build({**ROI_HEAD, 'loss_cls': SIGMOID})
    loss = head.loss_cls
    known = loss.rules, loss.custom_activation, len(head._forward_pre_hooks)
    compiled = torch.compile(loss, backend='eager')
    assert (loss.rules, loss.custom_activation, len(head._forward_pre_hooks)) == known
    head.loss_cls = compiled
    assert (loss.rules, loss.custom_activation, len(head._forward_pre_hooks)) == known
    # Also one that is compiled before it is put there.
    other = build({**ROI_HEAD, 'loss_cls': SIGMOID})
    other.loss_cls = torch.compile(MODELS.build(SIGMOID), backend='eager')
    assert other.loss_cls._orig_mod.rules == loss.rules


@pytest.mark.parametrize('kind', ['FocalLoss', 'DAALLoss'])
def test_a_detector_that_only_predicts_is_exported_whole(kind):
    loss = {'type': kind, 'use_sigmoid': True}
    head = build({**ANCHOR, 'feat_channels': 8, 'stacked_convs': 1, 'loss_cls': loss})
    head.eval()
    features = [torch.randn(1, 8, 4, 4) for _ in range(5)]
    with torch.no_grad():
        want = head(features)
        exported = torch.export.export(head, (features,), strict=True).module()
        torch._dynamo.reset()
        whole = torch.compile(head, fullgraph=True, backend='eager')
        for made in (exported, whole):
            torch.testing.assert_close(made(features), want)


def test_a_loss_that_was_replaced_is_silent():
    heard = []

    class Listener(DAALFocalLoss):
        def before_head(self, head, inputs):
            heard.append(self)

    head = nn.Linear(2, 2)
    features = torch.ones(1, 2)
    head.loss_cls = old = Listener()
    head(features)
    assert heard == [old]
    head.loss_cls = new = Listener()
    head(features)
    assert heard == [old, new]
    head.loss_cls = torch.compile(new, backend='eager')
    copied = copy.deepcopy(head)
    head(features)
    copied(features)
    assert heard[2:] == [new, copied.loss_cls._orig_mod]
    head.loss_cls = CrossEntropyLoss()
    head(features)
    del head.loss_cls
    head(features)
    assert len(heard) == 4


def test_a_sigmoid_box_head_predicts_its_classes():
    head = build({**ROI_HEAD, 'loss_cls': SIGMOID}).eval()
    logits = torch.full((1, 5), -9.0)
    logits[0, 3] = 5.0
    results = head._predict_by_feat_single(
        torch.tensor([[0.0, 4.0, 4.0, 40.0, 40.0]]),
        logits,
        torch.zeros(1, 20),
        dict(img_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0)),
        rcnn_test_cfg=ConfigDict(
            score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10
        ),
    )
    assert results.labels.tolist() == [3]
    assert results.scores.item() == pytest.approx(torch.tensor(5.0).sigmoid().item())


def test_an_exponent_that_detr_would_not_use_is_refused():
    loss = dict(SIGMOID, beta=2.0)
    message = (
        'DeformableDETRHead.loss_cls: DeformableDETRHead has scores .* '
        'QualityFocalLoss alone, .* got beta=2.0; leave it out'
    )
    with pytest.raises(ValueError, match=message):
        build({**QUERY_HEAD, 'type': 'DeformableDETRHead', 'loss_cls': loss})


def test_dense_heads_do_not_ask_the_loss_for_scores():
    # mmdet would take C + 1 columns where it wants C.
    assert not dense('RetinaHead', loss_cls=SIGMOID).loss_cls.custom_cls_channels
    assert not build({**ROI_HEAD, 'loss_cls': DAAL}).loss_cls.custom_activation


# --- class-agnostic heads -------------------------------------------------------------
def test_with_one_class_it_is_the_task_term():
    config = {
        'type': 'RPNHead',
        'in_channels': 8,
        'feat_channels': 8,
        'num_classes': 1,
    }
    loss = build({**config, 'loss_cls': dict(SIGMOID, gamma=0.0, alpha=None)}).loss_cls
    plain = CrossEntropyLoss(use_sigmoid=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        pred = torch.randn(40, 1, generator=generator).requires_grad_()
        labels = torch.randint(0, 2, (40,), generator=generator)
        ours = loss(pred, labels, avg_factor=40.0)
        theirs = plain(pred, labels, avg_factor=40.0)
        grads = [torch.autograd.grad(value, pred)[0] for value in (ours, theirs)]
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(*grads)
    assert loss.class_balance.num_measurements == 3
    assert loss.class_balance(1).tolist() == [1.0]


# --- heads that see the same objects several times ------------------------------------
LAYERS, QUERIES, GROUPS = 3, 6, 2
LABELS = torch.tensor([1, 3, 3])
BOXES = torch.tensor(
    [[4.0, 4.0, 30.0, 40.0], [20.0, 10.0, 60.0, 60.0], [8.0, 30.0, 40.0, 50.0]]
)
TRAIN_CFG = dict(
    assigner=dict(
        type='HungarianAssigner',
        match_costs=[
            dict(type='FocalLossCost', weight=2.0),
            dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='IoUCost', iou_mode='giou', weight=2.0),
        ],
    )
)
QUERY_HEAD = {
    'num_classes': 4,
    'embed_dims': 8,
    'sync_cls_avg_factor': True,
    'train_cfg': TRAIN_CFG,
}


def samples():
    """Two images with the same objects: 2 of class 1 and 4 of class 3."""
    shape = (SIZE, SIZE)
    sample = DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape))
    sample.gt_instances = InstanceData(bboxes=BOXES, labels=LABELS)
    return [sample, copy.deepcopy(sample)]


def calls_of(loss):
    """Kind, BNM term and class counts of the calls that feed the loss from now on."""
    calls, kinds, targets_of = [], [], []
    task_term, end_call = loss.task_term.forward, loss.end_call

    class Rules(HeadRules):
        def kind_of_call(self, index):
            kinds.append(super().kind_of_call(index))
            return kinds[-1]

    def spy_on_task(pred, targets, *args):
        targets_of.append(targets)
        return task_term(pred, targets, *args)

    def spy_on_end(alone, task, bnm, counts=None, has_bnm=True):
        kind, of_call = kinds[-1], targets_of[-1].class_counts()
        assert has_bnm == kind.bnm
        assert (counts is not None) == kind.counts
        calls.append((kind, bnm is not None, of_call.tolist()))
        end_call(alone, task, bnm, counts, has_bnm)

    loss.rules = Rules(*loss.rules)
    loss.task_term.forward, loss.end_call = spy_on_task, spy_on_end
    return calls


def counted(loss):
    return loss.pending[: loss.num_classes].tolist()


@pytest.mark.parametrize('sigmoid', [False, True])
def test_decoder_layers_count_their_objects_once(hub, sigmoid):
    hub.update_info('iter', 0)
    head = build(
        {'type': 'DETRHead', **QUERY_HEAD, 'loss_cls': dict(DAAL, use_sigmoid=sigmoid)}
    )
    kinds = calls_of(head.loss_cls)
    losses = head.loss(torch.randn(LAYERS, 2, QUERIES, 8), samples())
    assert [kind.counts for kind, *_ in kinds] == [True, False, False]
    assert all(bnm and kind.balances for kind, bnm, _ in kinds)
    # Each layer has the same objects, matched one to one.
    assert [counts for *_, counts in kinds] == [[0, 2, 0, 4]] * LAYERS
    assert counted(head.loss_cls) == [0, 2, 0, 4]
    assert losses['loss_cls'].shape == ()
    # The next iteration begins with its first layer.
    hub.update_info('iter', 1)
    head.loss(torch.randn(LAYERS, 2, QUERIES, 8), samples())
    assert [kind.counts for kind, *_ in kinds[LAYERS:]] == [True, False, False]
    assert head.loss_cls.class_balance.num_measurements == 1
    assert head.loss_cls.calls_per_iteration == LAYERS


def test_a_second_pass_of_an_iteration_begins_with_its_first_layer(hub):
    """Semi-supervised models have one of labelled images and one of pseudo labels."""
    hub.update_info('iter', 0)
    loss = dict(DAAL, use_sigmoid=True)
    head = build({'type': 'DETRHead', **QUERY_HEAD, 'loss_cls': loss})
    kinds = calls_of(head.loss_cls)
    for _ in range(2):
        head.loss(torch.randn(LAYERS, 2, QUERIES, 8), samples())
    assert [kind.counts for kind, *_ in kinds] == 2 * [True, False, False]
    assert counted(head.loss_cls) == [0, 4, 0, 8]


def references():
    return [torch.rand(2, QUERIES, 4) for _ in range(LAYERS + 1)]


def test_class_agnostic_proposals_of_the_encoder_have_the_task_term_alone(hub):
    hub.update_info('iter', 0)
    head = build(
        {
            'type': 'DeformableDETRHead',
            **QUERY_HEAD,
            'loss_cls': SIGMOID,
            'as_two_stage': True,
            'num_pred_layer': LAYERS + 1,
        }
    )
    kinds = calls_of(head.loss_cls)
    hidden = torch.randn(LAYERS, 2, QUERIES, 8)
    scores, boxes = torch.randn(2, 9, 4), torch.rand(2, 9, 4)
    inputs = hidden, references(), scores, boxes, samples()
    losses = head.loss(*inputs)
    assert [kind.counts for kind, *_ in kinds] == [True, False, False, False]
    # mmdet gives all objects the label 0 there.
    assert kinds[-1][2] == [6, 0, 0, 0]
    assert not kinds[-1][0].balances
    assert [bnm for _, bnm, _ in kinds] == [True, True, True, False]
    assert counted(head.loss_cls) == [0, 2, 0, 4]
    # Nor can they be confused.
    head.loss_cls.confusion_weight = 0
    without = head.loss(*inputs)
    assert torch.equal(without['enc_loss_cls'], losses['enc_loss_cls'])
    for name in ('loss_cls', 'd0.loss_cls', 'd1.loss_cls'):
        assert without[name] < losses[name]


def test_denoising_queries_are_weighed_and_not_counted(hub):
    hub.update_info('iter', 0)
    head = build(
        {
            'type': 'DINOHead',
            **QUERY_HEAD,
            'loss_cls': SIGMOID,
            'as_two_stage': True,
            'num_pred_layer': LAYERS + 1,
        }
    )
    kinds = calls_of(head.loss_cls)
    denoising = GROUPS * 2 * len(LABELS)
    total = denoising + QUERIES
    head.loss(
        torch.randn(LAYERS, 2, total, 8),
        [torch.rand(2, total, 4) for _ in range(LAYERS + 1)],
        torch.randn(2, 9, 4),
        torch.rand(2, 9, 4),
        samples(),
        dict(num_denoising_queries=denoising, num_denoising_groups=GROUPS),
    )
    assert len(kinds) == LAYERS + 1 + LAYERS
    assert [kind.counts for kind, *_ in kinds] == [True] + [False] * (2 * LAYERS)
    assert [bnm for _, bnm, _ in kinds] == [True] * LAYERS + [False] * (LAYERS + 1)
    assert all(kind.balances for kind, *_ in kinds)
    # The groups repeat the objects.
    assert kinds[-1][2] == [0, 2 * GROUPS, 0, 4 * GROUPS]
    assert counted(head.loss_cls) == [0, 2, 0, 4]
    # The mean of the BNM term is over the calls that have one.
    hub.update_info('iter', 1)
    head.loss_cls(torch.zeros(1, 4, requires_grad=True), torch.tensor([1]))
    assert head.loss_cls.calls_per_iteration == LAYERS


def test_scoring_calls_of_a_sampler_do_not_count_as_layers(hub):
    hub.update_info('iter', 0)
    head = build({'type': 'DETRHead', **QUERY_HEAD, 'loss_cls': DAAL})
    kinds = calls_of(head.loss_cls)
    pred, labels = torch.zeros(3, 5, requires_grad=True), torch.tensor([0, 1, 4])
    head.loss_cls(pred, labels, reduction_override='none')
    with torch.no_grad():
        head.loss_cls(pred, labels)
    assert kinds == []
    head.loss_cls(pred, labels)
    assert kinds[0][0].counts


# --- several losses in one model ------------------------------------------------------
def test_losses_of_one_model_keep_apart(hub):
    model = nn.Module()
    model.rpn_head = build(
        {'type': 'RPNHead', 'in_channels': 8, 'num_classes': 1, 'loss_cls': SIGMOID}
    )
    model.roi_head = nn.Module()
    model.roi_head.bbox_head = nn.ModuleList()
    for _ in range(3):
        model.roi_head.bbox_head.append(build({**ROI_HEAD, 'loss_cls': DAAL}))
    losses = [model.rpn_head.loss_cls, *(h.loss_cls for h in model.roi_head.bbox_head)]
    for k in range(3):
        hub.update_info('iter', k)
        losses[0](torch.zeros(4, 1, requires_grad=True), torch.tensor([0, 1, 1, 1]))
        for stage, loss in enumerate(losses[1:]):
            pred = torch.zeros(4, 6, requires_grad=True)
            loss(pred, torch.tensor([stage, stage, stage, 5]))
    assert [loss.class_balance.num_measurements.item() for loss in losses] == [2] * 4
    for stage, loss in enumerate(losses[1:]):
        assert loss.class_balance.share[:5].argmax() == stage
    names = {name for name in hub.log_scalars if name.endswith('_max_weight')}
    assert names == {
        'train/daal_rpn_head_max_weight',
        'train/daal_roi_head.bbox_head.0_max_weight',
        'train/daal_roi_head.bbox_head.1_max_weight',
        'train/daal_roi_head.bbox_head.2_max_weight',
    }
    assert not any('loss' in name for name in hub.log_scalars)


@pytest.mark.parametrize('several', [False, True])
def test_a_name_that_is_given_is_taken(hub, several):
    model = nn.Module()
    model.first = dense('RetinaHead', loss_cls=dict(SIGMOID, log_prefix='mine'))
    if several:
        model.second = dense('RetinaHead', loss_cls=SIGMOID)
    for k in range(2):
        hub.update_info('iter', k)
        pred = torch.zeros(2, 4, requires_grad=True)
        model.first.loss_cls(pred, torch.tensor([0, 4]))
    assert 'train/mine_task' in hub.log_scalars


# --- forms of predictions and targets -------------------------------------------------
@pytest.mark.parametrize('sigmoid', [False, True])
def test_probabilities_give_the_loss_of_their_logits(sigmoid):
    torch.manual_seed(0)
    columns = 5 if sigmoid else 6
    logits = torch.randn(30, columns, dtype=torch.float64)
    labels = torch.randint(0, 6, (30,))
    ours = DAALLoss(use_sigmoid=sigmoid, activated=True, bnm_weight=0.3)
    theirs = DAALLoss(use_sigmoid=sigmoid, bnm_weight=0.3)
    for _ in range(3):
        pred = logits.clone().requires_grad_()
        probability = pred.sigmoid() if sigmoid else pred.softmax(dim=1)
        value = ours(probability, labels)
        want = theirs(pred, labels)
        grads = [
            torch.autograd.grad(v, pred, retain_graph=True)[0] for v in (value, want)
        ]
        torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.class_balance.share, theirs.class_balance.share)


@pytest.mark.parametrize('sigmoid', [False, True])
def test_logits_are_no_probabilities(sigmoid):
    loss = DAALLoss(use_sigmoid=sigmoid, activated=True, bnm_weight=0.05)
    pred, labels = torch.tensor([[0.2, -3.0, 0.5], [0.1, 0.4, 4.0]]), torch.zeros(2)
    message = r'pred: expected probabilities in \[0, 1\] with activated=True, .*-3 to 4'
    with pytest.raises(ValueError, match=message):
        loss(pred, labels.long())


def test_soft_targets_without_focusing_are_binary_cross_entropy():
    """YOLOX and YOLOv3: one-hot targets times the IoU, summed."""
    torch.manual_seed(0)
    pred = torch.randn(2, 7, 5, requires_grad=True)
    target = F.one_hot(torch.randint(0, 5, (2, 7)), 5) * torch.rand(2, 7, 1)
    mask = torch.tensor([1.0, 0, 1, 1, 0, 1, 1]).expand(2, 7)[..., None]
    loss = DAALFocalLoss(
        gamma=0.0, alpha=None, reduction='sum', bnm_weight=0, class_balance=None
    )
    value = loss(pred, target, weight=mask)
    want = CrossEntropyLoss(use_sigmoid=True, reduction='sum')(
        pred, target, weight=mask.expand_as(pred)
    )
    torch.testing.assert_close(value, want)
    grads = [torch.autograd.grad(v, pred)[0] for v in (value, want)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('sigmoid', [False, True])
def test_divisor_in_a_tensor_of_one_number(sigmoid):
    """DETR's heads average the divisor over the ranks in a tensor of shape (1,)."""
    pred = torch.randn(8, 5, requires_grad=True)
    labels = torch.randint(0, 5, (8,))
    loss = DAALLoss(use_sigmoid=sigmoid, bnm_weight=0.05)
    value = loss(pred, labels, avg_factor=torch.tensor([4.0]))
    assert value.shape == ()
    want = DAALLoss(use_sigmoid=sigmoid, bnm_weight=0.05)(pred, labels, avg_factor=4.0)
    torch.testing.assert_close(value, want)


def test_rows_for_hard_negative_mining_still_measure_the_classes():
    """YOLACT configures reduction='none' and chooses the rows itself."""
    loss = DAALLoss(reduction='none', bnm_weight=0.05)
    pred, labels = torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 3, 3])
    for _ in range(3):
        value = loss(pred.requires_grad_(), labels)
    assert value.shape == (6,)
    assert loss.class_balance.num_measurements == 3
    weights = loss.class_balance(3)
    assert weights[1] > weights[0]
    plain = F.cross_entropy(pred, labels, reduction='none')
    row_weights = torch.cat((weights, torch.ones(1)))[labels]
    # The weights of the call are those before its own measurement.
    assert (value[4:] - plain[4:]).abs().max() < 1e-6
    assert value[3] > plain[3]
    assert row_weights[3] > 1
    assert loss(pred[:0].requires_grad_(), labels[:0]).shape == (0,)
    assert loss.pending.isfinite().all()


@pytest.mark.parametrize('sigmoid', [False, True])
def test_samplers_find_the_rows_of_the_greatest_losses(sigmoid):
    loss = {'type': 'DAALLoss', 'use_sigmoid': sigmoid}
    head = build({**ROI_HEAD, 'loss_cls': loss, 'num_classes': 3})
    scores = torch.randn(40, 3 if sigmoid else 4)
    labels = torch.randint(4, (40,))
    context = SimpleNamespace(
        bbox_head=head, _bbox_forward=lambda feats, rois: {'cls_score': scores}
    )
    sampler = OHEMSampler(num=8, pos_fraction=0.5, context=context)
    boxes = torch.rand(40, 4)
    found = sampler.hard_mining(torch.arange(40), 8, boxes, labels, feats=None)
    plain = FocalLoss() if sigmoid else CrossEntropyLoss()
    rows = torch.stack(
        [
            plain(row, label, avg_factor=1)
            for row, label in zip(scores.split(1), labels.split(1), strict=True)
        ]
    )
    assert sorted(found.tolist()) == sorted(rows.topk(8).indices.tolist())


def test_yolact_ranks_rows_of_sigmoids_by_their_sums():
    head = dense('YOLACTHead', loss_cls=SIGMOID | {'reduction': 'none'})
    pred = torch.randn(6, 4, requires_grad=True)
    labels = torch.tensor([0, 1, 4, 4, 4, 4])
    value = head.loss_cls(pred, labels)
    assert value.shape == (6,)
    want = DAALLoss(use_sigmoid=True, reduction='none')(pred, labels)
    torch.testing.assert_close(value, want.sum(1))
