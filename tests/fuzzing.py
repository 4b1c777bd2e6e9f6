"""What the fuzz tests share: how many examples, and inputs of half precision.

The short form runs with the other tests; FUZZ=10000 makes it long.
"""

import os

import torch
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get('FUZZ', 60))
ITERATIONS = max(EXAMPLES, 150)
AUTOCAST = (None, torch.bfloat16, torch.float16)

fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
)


def autocast(dtype):
    """What a training with mixed precision runs in; None is without."""
    return torch.autocast(
        'cpu', dtype=dtype or torch.bfloat16, enabled=dtype is not None
    )


def as_a_network_gives_it(tensor, dtype):
    """Under autocast a head's last layer gives half precision."""
    return tensor if dtype is None else tensor.to(dtype)


def assert_finite_state(module, where=''):
    for name, buffer in module.named_buffers():
        assert torch.isfinite(buffer.float()).all(), (where, name, buffer)
