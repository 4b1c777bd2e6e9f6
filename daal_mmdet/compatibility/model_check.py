"""Checks one model: does it train with the losses of this package?"""

from __future__ import annotations

import copy
import itertools
import re
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from daal_mmdet.compatibility.loss_merging import (
    Merged,
    merge_box_losses,
    merge_class_losses,
)
from daal_mmdet.compatibility.random_batch import random_batch
from daal_mmdet.compatibility.shipped_configs import ShippedConfig
from daal_mmdet.compatibility.shrinking import shrink_model
from daal_mmdet.hooks import KalmanCovarianceHook
from daal_mmdet.losses import DAALLoss
from daal_mmdet.losses.placement import path_in_model

__all__ = ['CheckResult', 'check_model']

# Epoch, and boxes in each image. TOOD changes its classification loss in late epochs.
_STEPS = ((0, 3), (0, 0), (1000, 3))
_STEPS_WITH_BOXES = ((0, 3), (0, 3), (1000, 3))
_OWN_FAILURE = 'fails with its own losses too'
_HUB_NUMBERS = itertools.count()
_NO_ADAPTER = re.compile(r'box loss of (\w+) belong')
_QUERY_HEADS = {'DETRHead', 'DIIHead', 'MaskFormerHead'}


@dataclass
class CheckResult:
    """What came of one config.

    Attributes:
        config: Name of the config.
        status: 'works', 'refused' when the model is built, 'fails', or 'not checked'.
        reason: Why it does not work; notes if it does.
        heads: Heads with a classification loss.
        modes: How these call it.
        configured: Whether the config has a classification loss.
        box: What became of the box losses: 'works', or why not.
        seconds: How long the check took.
    """

    config: str
    status: str
    reason: str = ''
    heads: list[str] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    configured: bool = True
    box: str = ''
    seconds: float = 0.0


class _Refusal(Exception):
    """The model can't be built with the losses."""


def check_model(
    config: ShippedConfig, sizes: Sequence[int] = (96, 384), seed: int = 0
) -> CheckResult:
    """Train a config's model for a few iterations with the losses of this package.

    The first batch has boxes, the second none, the third some, in a late epoch; a
    fourth follows if a loss was called in the third alone. It works if every loss is
    finite, the logits get a gradient, and the filters of every ``DAALLoss`` that was
    trained have moved. If that fails with the box losses, it is tried without them.

    A model that fails with its own losses too says nothing about ours. It is tried with
    boxes in all images, then on larger ones, and else counts as not checked; it may
    lack a package or a GPU.

    Args:
        config: The config.
        sizes: Sides of the images in pixels, to be tried in this order.
        seed: Seed of weights and images.
    """
    start = time.monotonic()
    result = CheckResult(config.name, 'not checked', config.problem)
    if not config.problem:
        init_default_scope('mmdet')
        _check_sizes(config, sizes, seed, result)
    result.seconds = round(time.monotonic() - start, 1)
    return result


@dataclass(frozen=True)
class _Trial:
    """One way to train a model.

    Attributes:
        config: The config.
        size: Side of the images in pixels.
        seed: Seed of weights and images.
        steps: Epoch, and boxes in each image, of every iteration.
    """

    config: ShippedConfig
    size: int
    seed: int
    steps: Sequence[tuple[int, int]]

    def model_config(self) -> dict:
        """The model as plain dicts, shrunk."""
        return shrink_model(copy.deepcopy(dict(self.config.model)))


def _check_sizes(
    config: ShippedConfig, sizes: Sequence[int], seed: int, result: CheckResult
) -> None:
    problem = ''
    for size in sizes:
        for steps in (_STEPS, _STEPS_WITH_BOXES):
            trial = _Trial(config, size, seed, steps)
            # A model that does not train by itself need not be tried.
            if problem and (own := _own_problem(trial)):
                problem = own
                continue
            _attempt(trial, result)
            if result.status == 'fails':
                problem = _own_problem(trial)
                if problem:
                    continue
            elif steps is _STEPS_WITH_BOXES:
                note = f'images without boxes: {_OWN_FAILURE}: {problem}'
                result.reason = '; '.join(filter(None, (result.reason, note)))
            return
    result.status = 'not checked'
    result.reason = f'{_OWN_FAILURE}: {problem}'


def _attempt(trial: _Trial, result: CheckResult) -> None:
    """Check with the box losses, or else without."""
    result.box = ''
    for with_box in (True, False):
        try:
            _check(trial, result, with_box)
        except _Refusal as refusal:
            result.status, result.reason, result.box = 'refused', str(refusal), ''
        except ImportError as error:
            result.status, result.reason = 'not checked', _first_line(error)
        except Exception as error:  # noqa: BLE001 - any failure is a row of the table
            result.status, result.reason = 'fails', _first_line(error)
            if with_box:
                result.box = _box_reason(error)
                continue
            result.box = ''
        return


def _own_problem(trial: _Trial) -> str:
    """Why the model does not train with its own losses; '' if it does."""
    model_config = trial.model_config()
    torch.manual_seed(trial.seed)
    try:
        model = MODELS.build(ConfigDict(model_config))
        model.init_weights()
        _train(model, model_config, trial)
    except Exception as error:  # noqa: BLE001
        return _first_line(error)
    return ''


def _check(trial: _Trial, result: CheckResult, with_box: bool) -> None:
    model_config = trial.model_config()
    # With every adaptive part, so that each is checked in the head.
    merged = merge_class_losses(model_config, bnm_weight=0.05)
    boxes = merge_box_losses(model_config) if with_box else []
    result.configured = any(m.base for m in merged)
    result.heads = sorted({m.head for m in merged})
    if not merged:
        head = model_config.get('bbox_head') or model_config
        result.heads = [head['type']]
        raise _Refusal(
            f'{head["type"]} takes no classification loss from the config; its own is '
            'part of its code'
        )
    torch.manual_seed(trial.seed)
    try:
        model = MODELS.build(ConfigDict(model_config))
    except (TypeError, ValueError) as error:
        if 'DAALLoss' in str(error):
            text = str(error) if isinstance(error, ValueError) else _first_line(error)
            raise _Refusal(text) from error
        raise
    model.init_weights()
    hook = _connect(model) if boxes else None
    watch = _Watch(model)
    # The filters step when the next iteration begins.
    _train(model, model_config, trial, hook, go_on=watch.waits)
    watch.check()
    result.status = 'works'
    result.modes = watch.modes()
    result.reason = '; '.join(watch.notes() + _replacements(merged))
    if boxes:
        result.box = 'works'


def _connect(model: nn.Module) -> KalmanCovarianceHook:
    hook = KalmanCovarianceHook()
    hook.before_train(SimpleNamespace(model=model, iter=0))
    return hook


def _train(
    model: nn.Module,
    model_config: Mapping,
    trial: _Trial,
    hook: KalmanCovarianceHook | None = None,
    go_on: Callable[[], bool] = lambda: False,
) -> None:
    """Train for the steps of a trial, and for one more if ``go_on`` says so."""
    model.train()
    rng = np.random.default_rng(trial.seed)
    # The newest hub is the current one, from which the losses read the iteration.
    hub = MessageHub.get_instance(f'compatibility_{next(_HUB_NUMBERS)}')
    steps = list(trial.steps)
    for iteration, (epoch, num_boxes) in enumerate(steps):
        hub.update_info('iter', iteration)
        hub.update_info('epoch', epoch)
        batch = random_batch(model_config, trial.size, num_boxes, rng)
        _train_step(model, batch, iteration)
        if hook is not None:
            hook.after_train_iter(SimpleNamespace(model=model), iteration)
        if iteration == len(trial.steps) - 1 and go_on():
            steps.append(steps[-1])


def _train_step(model: nn.Module, batch: Mapping, iteration: int) -> None:
    data = model.data_preprocessor(batch, training=True)
    model.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        losses = model(data['inputs'], data['data_samples'], mode='loss')
    total, values = model.parse_losses(losses)
    for name, value in values.items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            raise ValueError(f'{name} is {float(value)} in iteration {iteration}')
    total.backward()


class _Watch:
    """Follows the calls and the state of every ``DAALLoss`` of a model."""

    def __init__(self, model: nn.Module) -> None:
        self.losses = {
            path_in_model(module): module
            for module in model.modules()
            if isinstance(module, DAALLoss)
        }
        self.owners = {
            name: model.get_submodule(name.rpartition('.')[0]) for name in self.losses
        }
        self.predictions: dict[str, list[Tensor]] = {name: [] for name in self.losses}
        self.quality: set[str] = set()
        self.soft: set[str] = set()
        for name, loss in self.losses.items():
            loss.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: self._see(name, args, kwargs),
                with_kwargs=True,
            )

    def _see(self, name: str, args: Sequence, kwargs: Mapping) -> None:
        pred, target = [*args, *kwargs.values()][:2]
        if isinstance(target, tuple | list):
            self.quality.add(name)
        elif target.dim() == pred.dim():
            self.soft.add(name)
        if pred.requires_grad and kwargs.get('reduction_override') != 'none':
            pred.retain_grad()
            self.predictions[name].append(pred)

    def waits(self) -> bool:
        """Whether a loss was called whose filters have not stepped yet."""
        return any(
            calls and self.losses[name].class_balance.num_measurements == 0
            for name, calls in self.predictions.items()
        )

    def check(self) -> None:
        """Check gradients and filters.

        Raises:
            ValueError: If a loss that was trained gave no gradient, or its filters did
                not move.
        """
        if not any(self.predictions.values()):
            raise ValueError('no DAALLoss was called in training')
        for name, predictions in self.predictions.items():
            if not predictions:
                continue
            grads = [pred.grad for pred in predictions if pred.grad is not None]
            if not all(bool(grad.isfinite().all()) for grad in grads):
                raise ValueError(f'{name}: the gradient is not finite')
            if not any(bool((grad != 0).any()) for grad in grads):
                raise ValueError(f'{name}: the gradient of the logits is zero')
            parameters = self.owners[name].parameters()
            if not any(
                p.grad is not None and bool((p.grad != 0).any()) for p in parameters
            ):
                raise ValueError(f'{name}: its head has no gradient')
            loss = self.losses[name]
            if loss.class_balance.num_measurements == 0:
                raise ValueError(f'{name}: the class shares were never measured')
            if loss.proportion.num_measurements == 0:
                raise ValueError(f'{name}: the task loss was never measured')

    def modes(self) -> list[str]:
        """How the heads call their losses."""
        return sorted(
            {self._mode(name) for name in self.losses if self.predictions[name]}
        )

    def _mode(self, name: str) -> str:
        families = {base.__name__ for base in type(self.owners[name]).__mro__}
        mode = 'sigmoid' if self.losses[name].use_sigmoid else 'softmax'
        if name in self.quality:
            mode = 'quality-focal'
        elif name in self.soft:
            mode += ', soft targets'
        return f'query, {mode}' if families & _QUERY_HEADS else mode

    def notes(self) -> list[str]:
        """Losses that were not trained."""
        idle = [name for name, calls in self.predictions.items() if not calls]
        return [f'{name} is not trained' for name in idle]


def _replacements(merged: Sequence[Merged]) -> list[str]:
    bases = sorted({m.base for m in merged if m.replaced})
    return [f'{base} replaced whole (`_delete_=True`)' for base in bases]


def _box_reason(error: BaseException) -> str:
    unknown = _NO_ADAPTER.search(str(error))
    return f'no adapter for {unknown[1]}' if unknown else _first_line(error)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    if not text:
        # An assertion of mmdet that says nothing; show it.
        text = traceback.extract_tb(error.__traceback__)[-1].line or ''
    return f'{type(error).__name__}: {text.splitlines()[0] if text else ""}'
