"""Several processes without an accelerator: MMEngine's launcher, over gloo."""

from __future__ import annotations

import datetime

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.logging import print_log

__all__ = ['join_cpu_processes', 'run_on_cpu']


def run_on_cpu() -> bool:
    """Whether MMEngine would place the model on the CPU."""
    return get_device() == 'cpu'


def join_cpu_processes(config: Config) -> None:
    """Join the processes that torchrun started, and let the model be wrapped for CPU.

    MMEngine's own start asks CUDA for the device of the local rank, and hands that
    device to DistributedDataParallel; both fail without CUDA. It skips the first if
    the processes are joined already, and the second can be configured.

    Args:
        config: Config of the run; its ``model_wrapper_cfg`` is completed, with
            ``find_unused_parameters`` taken from the top level as MMEngine does.
            ``env_cfg.dist_cfg`` may name gloo and a ``timeout`` in seconds; NCCL, its
            usual value, needs CUDA and is replaced.
    """
    settings = config.get('env_cfg', {}).get('dist_cfg', {})
    backend = settings.get('backend', 'gloo')
    if backend not in ('gloo', 'mpi'):
        print_log(f'env_cfg.dist_cfg.backend: gloo on a CPU, in place of {backend}')
        backend = 'gloo'
    options = {}
    if settings.get('timeout') is not None:
        options['timeout'] = datetime.timedelta(seconds=settings['timeout'])
    if not is_distributed():
        dist.init_process_group(backend, **options)
    wrapper = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': config.get('find_unused_parameters', False),
        **(config.get('model_wrapper_cfg') or {}),
    }
    config.model_wrapper_cfg = {**wrapper, 'device_ids': None}
