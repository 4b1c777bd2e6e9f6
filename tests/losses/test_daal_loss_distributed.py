"""Two gloo processes must keep the state that one process with both batches keeps."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from daal_mmdet.losses import DAALFocalLoss

C, ITERATIONS = 4, 5


def batch(iteration, rank):
    generator = torch.Generator().manual_seed(100 * iteration + rank)
    pred = torch.randn(40, C, generator=generator)
    return pred, torch.randint(0, C + 1, (40,), generator=generator)


class Wrapped(torch.nn.Module):
    """A loss in a model that DDP takes: with something to train."""

    def __init__(self):
        super().__init__()
        self.loss = DAALFocalLoss(bnm_weight=0.05)
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def forward(self, pred, *args, **kwargs):
        return self.loss(pred + self.shift, *args, **kwargs)


def train(ranks, broadcast_buffers=None):
    """Run the loss on the batches of ``ranks``, averaged as a head averages them.

    Under DDP, which may copy the buffers of rank 0 to all before each call; without it
    where ``broadcast_buffers`` is None.
    """
    MessageHub.get_instance('distributed-test')
    model = Wrapped()
    loss = model.loss
    if broadcast_buffers is not None:
        model = torch.nn.parallel.DistributedDataParallel(
            model, broadcast_buffers=broadcast_buffers
        )
    for k in range(ITERATIONS):
        MessageHub.get_current_instance().update_info('iter', k)
        preds, labels = zip(*[batch(k, rank) for rank in ranks], strict=True)
        # mmdet's heads average the number of positives over the ranks.
        avg_factor = 15.0 * len(ranks)
        model(torch.cat(preds), torch.cat(labels), avg_factor=avg_factor).backward()
    return loss.state_dict()


def worker(rank, folder):
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    states = [train([rank], broadcast_buffers=flag) for flag in (None, False, True)]
    torch.save(states, folder / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason='torch has no distributed')
def test_two_processes_keep_the_state_of_one(tmp_path):
    mp.spawn(worker, args=(tmp_path,), nprocs=2)
    both = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    alone = train([0, 1])
    for first, second in zip(*both, strict=True):
        for name, want in alone.items():
            if name == 'pending':
                # Sums of the iteration under way: each process still holds its own.
                continue
            torch.testing.assert_close(first[name], want, rtol=1e-4, atol=1e-7)
            assert torch.equal(first[name], second[name])
    assert alone['proportion.num_measurements'] == ITERATIONS - 1


def yolox_head():
    torch.manual_seed(0)
    assigner = dict(type='SimOTAAssigner', center_radius=2.5)
    return MODELS.build(
        ConfigDict(
            type='YOLOXHead',
            num_classes=C,
            in_channels=8,
            feat_channels=8,
            loss_cls=dict(type='DAALLoss', use_sigmoid=True, reduction='sum'),
            train_cfg=dict(assigner=assigner),
        )
    )


def yolox_worker(rank, folder):
    store = f'file://{folder}/store'
    timeout = timedelta(seconds=60)
    dist.init_process_group(
        'gloo', init_method=store, rank=rank, world_size=2, timeout=timeout
    )
    init_default_scope('mmdet')
    MessageHub.get_instance('distributed-test')
    head = yolox_head()
    calls = []
    head.loss_cls.register_forward_hook(lambda *_: calls.append(1))
    for k in range(ITERATIONS):
        MessageHub.get_current_instance().update_info('iter', k)
        sample = DetDataSample(metainfo=dict(img_shape=(64, 64)))
        # The second process has objects in two iterations only.
        number = 1 if rank == 0 or k in (1, 2) else 0
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]])[:number],
            labels=torch.tensor([1])[:number],
        )
        features = [torch.randn(1, 8, 64 // s, 64 // s) for s in (8, 16, 32)]
        sum(head.loss(features, [sample]).values()).backward()
    torch.save((head.loss_cls.state_dict(), len(calls)), folder / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason='torch has no distributed')
def test_a_process_whose_head_does_not_call_the_loss_keeps_up(tmp_path):
    mp.spawn(yolox_worker, args=(tmp_path,), nprocs=2)
    (first, calls), (second, fewer) = (
        torch.load(tmp_path / f'{rank}.pth') for rank in range(2)
    )
    assert (calls, fewer) == (ITERATIONS, 2)
    # Where only one of them called it, that was a whole call.
    assert first['calls_per_iteration'] == 1
    for name, want in first.items():
        if name != 'pending':
            assert torch.equal(second[name], want)
    assert first['class_balance.num_measurements'] == ITERATIONS - 1
