"""Two gloo processes must end with the filters and weights of one with both batches."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.models.dense_heads import ATSSHead
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from daal_mmdet.covariance_bank import CovarianceBank
from daal_mmdet.hooks import KalmanCovarianceHook
from daal_mmdet.hooks.covariance_tracker import CovarianceTracker
from daal_mmdet.losses.uncertainty_aware_smooth_l1 import UncertaintyAwareSmoothL1
from tests.hooks.test_adapters import make_samples

STRIDES, ITERATIONS = (8, 16), 5


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        init_default_scope('mmdet')
        torch.manual_seed(0)
        # Gets no gradient: only find_unused_parameters lets the others go on.
        self.unused = nn.Linear(2, 2)
        self.bbox_head = ATSSHead(
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            norm_cfg=dict(type='GN', num_groups=4),
            anchor_generator=dict(
                type='AnchorGenerator',
                ratios=[1.0],
                octave_base_scale=4,
                scales_per_octave=1,
                strides=STRIDES,
            ),
            loss_bbox=dict(
                type='UncertaintyAwareLoss', loss=dict(type='GIoULoss', loss_weight=2.0)
            ),
            train_cfg=ConfigDict(
                assigner=dict(type='ATSSAssigner', topk=5),
                allowed_border=-1,
                pos_weight=-1,
            ),
        )

    def forward(self, features, samples):
        losses = self.bbox_head.loss(features, samples)
        return sum(
            sum(part) if isinstance(part, list) else part for part in losses.values()
        )


def batch(iteration, rank):
    generator = torch.Generator().manual_seed(100 * iteration + rank)
    features = [
        torch.randn(1, 8, 128 // s, 128 // s, generator=generator) for s in STRIDES
    ]
    shift = torch.rand(1, generator=generator) * 20
    samples = make_samples(1)
    samples[0].gt_instances.bboxes += shift
    samples[0].gt_instances.labels = torch.tensor([0, 1, 2])
    # Ranks have different numbers of boxes, and once none.
    keep = 3 if rank == 0 else iteration % 3
    samples[0].gt_instances = samples[0].gt_instances[:keep]
    return features, samples


def train(ranks):
    model = Detector()
    hook = KalmanCovarianceHook()
    hook._connect(model)
    wrapped = model
    if dist.is_initialized():
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for k in range(ITERATIONS):
        features, samples = zip(*[batch(k, rank) for rank in ranks], strict=True)
        features = [torch.cat(level) for level in zip(*features, strict=True)]
        loss = wrapped(features, sum(samples, []))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hook.after_train_iter(None, k)
    bank = hook.trackers['bbox_head.loss_bbox'].bank
    return {'model': model.state_dict(), 'bank': bank.state_dict()}


def worker(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    torch.save(train([rank]), folder / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason='torch has no distributed')
def test_two_processes_end_where_one_does(tmp_path):
    mp.spawn(worker, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    alone = train([0, 1])
    for part in ('model', 'bank'):
        for name, want in alone[part].items():
            if torch.is_tensor(want):
                torch.testing.assert_close(
                    first[part][name], want, rtol=2e-3, atol=1e-5, msg=name
                )
                assert torch.equal(first[part][name], second[part][name]), name
            else:
                assert first[part][name] == second[part][name] == want
    assert alone['bank']['visits'].sum() > 30


def make_levels(rank, folder):
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    tracker = CovarianceTracker(UncertaintyAwareSmoothL1(), CovarianceBank(), 'name')
    # Batches are padded to their own largest image.
    tracker.level(0, 3, (4 + rank, 5 - rank))
    tracker.level(1, 1, (2 - rank, 2))
    torch.save(tracker.bank.levels, folder / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason='torch has no distributed')
def test_processes_agree_on_the_grid_of_a_level(tmp_path):
    mp.spawn(make_levels, args=(tmp_path,), nprocs=2)
    for rank in range(2):
        assert torch.load(tmp_path / f'{rank}.pth') == [(3, 4, 5), (1, 2, 2)]
