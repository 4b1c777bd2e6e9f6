"""Two gloo processes must keep the state that one process with both batches keeps."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.logging import MessageHub

from daal_mmdet.losses import DAALFocalLoss

C, ITERATIONS = 4, 5


def batch(iteration, rank):
    generator = torch.Generator().manual_seed(100 * iteration + rank)
    pred = torch.randn(40, C, generator=generator)
    return pred, torch.randint(0, C + 1, (40,), generator=generator)


def train(ranks):
    """Run the loss on the batches of ``ranks``, averaged as a head averages them."""
    MessageHub.get_instance('distributed-test')
    loss = DAALFocalLoss()
    for k in range(ITERATIONS):
        MessageHub.get_current_instance().update_info('iter', k)
        preds, labels = zip(*[batch(k, rank) for rank in ranks], strict=True)
        # mmdet's heads average the number of positives over the ranks.
        avg_factor = 15.0 * len(ranks)
        loss(
            torch.cat(preds).requires_grad_(), torch.cat(labels), avg_factor=avg_factor
        )
    return loss.state_dict()


def worker(rank, folder):
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    torch.save(train([rank]), folder / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason='torch has no distributed')
def test_two_processes_keep_the_state_of_one(tmp_path):
    mp.spawn(worker, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    alone = train([0, 1])
    for name, want in alone.items():
        if name == 'pending':
            # Sums of the iteration under way: each process still holds its own.
            continue
        torch.testing.assert_close(first[name], want, rtol=1e-4, atol=1e-7)
        assert torch.equal(first[name], second[name])
    assert alone['proportion.num_measurements'] == ITERATIONS - 1
