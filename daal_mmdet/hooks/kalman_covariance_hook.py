"""KalmanCovarianceHook: follows how well the box regression of each anchor is known."""

from __future__ import annotations

import logging

import torch.nn as nn
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from daal_mmdet.covariance_bank import COVARIANCES, CovarianceBank
from daal_mmdet.hooks.adapters import adapter_for
from daal_mmdet.hooks.covariance_tracker import CovarianceTracker
from daal_mmdet.hooks.head_adapter import HeadAdapter
from daal_mmdet.losses.covariance_weighting import CovarianceWeightedLoss
from daal_mmdet.losses.iteration_scalars import IterationScalars
from daal_mmdet.validation import check_choice, check_number

__all__ = ['CHECKPOINT_KEY', 'KalmanCovarianceHook']

CHECKPOINT_KEY = 'kalman_covariance'


@HOOKS.register_module()
class KalmanCovarianceHook(Hook):
    """Tracks the covariance that ``UncertaintyAwareSmoothL1`` weighs boxes with.

    ::

        custom_hooks = [dict(type='KalmanCovarianceHook')]

    Before training it finds every ``UncertaintyAwareSmoothL1`` and
    ``UncertaintyAwareLoss`` of the model and gives each a bank of Kalman filters
    (:class:`~daal_mmdet.covariance_bank.CovarianceBank`), one filter a slot:

    ===============================  ===============================================
    anchor and point heads           level, anchor of the cell, cell
    box heads of two-stage models    FPN level, class
    DETR and its kin, Sparse R-CNN   decoder layer, query
    ===============================  ===============================================

    Cells are those of the feature map in the first iteration; maps of another size are
    laid over them. After each iteration one filter step takes the residuals of all
    ranks. Each level's mean log det P appears as the scalar
    ``train/kalman_log_det_<level>``, with the place of the loss in the name if there
    are several, as ``train/kalman_rpn_head_log_det_<level>``.

    The filters are saved in checkpoints under a key of their own, so ``state_dict``
    stays what a config without the hook expects. A resumed training goes on with them;
    ``load_from`` starts with new ones.

    Args:
        covariance: 'diag' (four independent variances) or 'full' (4 x 4).
        process_noise: Q = process_noise I, >= 0, in squared residuals; how fast a
            residual may drift from one measurement to the next.
        measurement_noise: Fixed R = measurement_noise I, > 0; None estimates it from
            the residuals of each (level, template) and slot.
        initial_variance: Prior variance of a residual, > 0.
        forgetting: In (0, 1], what an iteration leaves of what was measured before.
        noise_prior: Measurements, > 0, that the R of a level counts for in that of its
            templates, and this in that of a slot; ``float('inf')`` gives a level one R.

    Raises:
        TypeError: If a number is none.
        ValueError: If an option is out of range. Before training: if the model has no
            loss to serve, or a head that no adapter fits. On a resume: if the saved
            filters are of another kind or of other losses, or an earlier version wrote
            them.
    """

    def __init__(
        self,
        covariance: str = 'diag',
        process_noise: float = 1e-3,
        measurement_noise: float | None = None,
        initial_variance: float = 1.0,
        forgetting: float = 0.98,
        noise_prior: float = 20.0,
    ) -> None:
        check_choice('covariance', covariance, COVARIANCES)
        check_number('process_noise', process_noise, low=0)
        if measurement_noise is not None:
            check_number('measurement_noise', measurement_noise, above=0)
        check_number('initial_variance', initial_variance, above=0)
        check_number('forgetting', forgetting, above=0, high=1)
        if noise_prior != float('inf'):
            check_number('noise_prior', noise_prior, above=0)
        self._options = dict(
            covariance=covariance,
            process_noise=process_noise,
            measurement_noise=measurement_noise,
            initial_variance=initial_variance,
            forgetting=forgetting,
            noise_prior=noise_prior,
        )
        self.trackers: dict[str, CovarianceTracker] = {}
        self._adapters: list[HeadAdapter] = []
        self._scalars: dict[str, IterationScalars] = {}
        self._saved: dict | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the saved filters until it is known whether training resumes."""
        self._saved = checkpoint.get(CHECKPOINT_KEY)

    def before_train(self, runner: Runner) -> None:
        """Connect the losses with their filters."""
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        self._connect(model)
        # A checkpoint that is only loaded leaves the counter at 0.
        if runner.iter > 0:
            self._restore()
        self._saved = None

    def before_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
    ) -> None:
        """Tell the trackers that this iteration is served."""
        for tracker in self.trackers.values():
            tracker.iteration = runner.iter

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Step the filters and show what they know."""
        for name, tracker in self.trackers.items():
            tracker.step()
            values = tracker.bank.mean_log_det()
            # No level where nothing called the loss yet: YOLOX's loss_l1 waits for the
            # last epochs, and a teacher's losses are never called.
            if len(values) > 0:
                self._scalars[name].send(
                    {f'log_det_{level}': value for level, value in enumerate(values)}
                )

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        for adapter in self._adapters:
            adapter.detach()
        self._adapters = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the filters to the checkpoint; all ranks have the same."""
        checkpoint[CHECKPOINT_KEY] = {
            name: tracker.state_dict() for name, tracker in self.trackers.items()
        }

    def _connect(self, model: nn.Module) -> None:
        heads: dict[str, tuple[nn.Module, dict[str, CovarianceWeightedLoss]]] = {}
        for path, head in model.named_modules():
            losses = {
                f'{path}.{name}' if path else name: loss
                for name, loss in head.named_children()
                if isinstance(loss, CovarianceWeightedLoss)
            }
            if losses:
                heads[path or type(head).__name__] = head, losses
        if not heads:
            raise ValueError(
                'KalmanCovarianceHook: the model has no UncertaintyAwareSmoothL1 or '
                'UncertaintyAwareLoss to serve; set one as loss_bbox, or take the hook '
                'out of custom_hooks'
            )
        makers = {
            path: adapter_for(head, path, [name.rpartition('.')[2] for name in losses])
            for path, (head, losses) in heads.items()
        }
        device = next(model.parameters()).device
        self.trackers, self._adapters = {}, []
        for path, (head, losses) in heads.items():
            trackers = {
                name: CovarianceTracker(
                    loss, CovarianceBank(**self._options, device=device), name
                )
                for name, loss in losses.items()
            }
            adapter = makers[path](head, list(trackers.values()), model)
            for tracker in trackers.values():
                tracker.extra_calls = adapter.extra_calls
            adapter.attach()
            self._adapters.append(adapter)
            self.trackers |= trackers
        places = {
            name: f'_{name.removesuffix("loss_bbox").rstrip("._")}'
            for name in self.trackers
        }
        self._scalars = {
            name: IterationScalars('kalman' if len(places) == 1 else f'kalman{place}')
            for name, place in places.items()
        }

    def _restore(self) -> None:
        if self._saved is None:
            print_log(
                'KalmanCovarianceHook: the checkpoint holds no filters, so they start '
                'anew',
                logger='current',
                level=logging.WARNING,
            )
            return
        for name, tracker in self.trackers.items():
            if name not in self._saved:
                raise ValueError(
                    f'KalmanCovarianceHook: the checkpoint holds no filters of {name}, '
                    f'only of {sorted(self._saved)}; resume with the same losses'
                )
            tracker.load_state_dict(self._saved[name])
