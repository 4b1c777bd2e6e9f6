import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from daal_mmdet.hooks import iteration_seed_hook


class Runner(SimpleNamespace):
    """What the hook asks of a runner."""

    def __init__(
        self,
        seed=3,
        iter=0,
        workers=0,
        persistent=False,
        loop=EpochBasedTrainLoop,
    ):
        self.warnings = []
        super().__init__(
            seed=seed,
            iter=iter,
            # Only its class is looked at.
            train_loop=loop.__new__(loop),
            logger=SimpleNamespace(warning=self.warnings.append),
            train_dataloader=DataLoader(
                range(4),
                num_workers=workers,
                persistent_workers=persistent,
            ),
        )


@pytest.fixture(autouse=True)
def _random_state_of_the_others():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def draw():
    return random.random(), np.random.random(), torch.rand(()).item()


def drawn_in(runner, iterations):
    """(while reading, in the step) of each iteration, validation in between."""
    hook = HOOKS.build({'type': 'IterationSeedHook'})
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    # A loop of iterations makes it when it reads the first batch.
    iter(runner.train_dataloader)
    seen = []
    for _ in range(iterations):
        read = draw()
        hook.before_train_iter(runner, batch_idx=0)
        seen.append((read, draw()))
        # How much a step draws must not matter.
        torch.rand(int(torch.randint(9, ())))
        hook.after_train_iter(runner, batch_idx=0)
        runner.iter += 1
        if runner.iter == 3:
            draw()
            hook.after_val_epoch(runner)
    return seen


def test_a_resumed_run_draws_what_the_unbroken_one_does():
    unbroken = drawn_in(Runner(), 6)
    draw()
    assert drawn_in(Runner(iter=2), 4) == unbroken[2:]
    # Resumed where the unbroken one had just validated.
    assert drawn_in(Runner(iter=3), 3) == unbroken[3:]
    # And every iteration other numbers, in either stream and each generator.
    for generator in range(3):
        numbers = [part[generator] for both in unbroken for part in both]
        assert len(set(numbers)) == 12


@pytest.mark.parametrize('other', ['seed', 'rank'])
def test_seeds_and_ranks_draw_their_own(other, monkeypatch):
    first = drawn_in(Runner(), 2)
    if other == 'rank':
        monkeypatch.setattr(iteration_seed_hook, 'get_rank', lambda: 1)
    second = drawn_in(Runner(seed=4 if other == 'seed' else 3), 2)
    assert {n for both in first for part in both for n in part}.isdisjoint(
        n for both in second for part in both for n in part
    )


@pytest.mark.parametrize(
    ('workers', 'persistent', 'loop', 'remedy'),
    [
        (0, False, EpochBasedTrainLoop, None),
        (2, False, EpochBasedTrainLoop, None),
        (2, True, EpochBasedTrainLoop, 'persistent_workers=False'),
        (0, False, IterBasedTrainLoop, None),
        (2, False, IterBasedTrainLoop, 'num_workers=0'),
    ],
)
def test_workers_that_live_on_are_warned_of(workers, persistent, loop, remedy):
    runner = Runner(workers=workers, persistent=persistent, loop=loop)
    HOOKS.build({'type': 'IterationSeedHook'}).before_train(runner)
    assert len(runner.warnings) == (remedy is not None)
    assert all(f'train_dataloader.{remedy} rep' in text for text in runner.warnings)
