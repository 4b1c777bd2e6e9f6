"""No test of weights that are not the checkpoint's."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

__all__ = ['FittingCheckpointHook', 'OtherModelError']

# Of a long list, as many are told.
_TOLD = 3


class OtherModelError(ValueError):
    """A checkpoint leaves weights of the model as they were drawn."""


class FittingCheckpointHook(Hook):
    """Stop where a checkpoint does not fill the model that it is loaded into.

    mmengine passes over weights that are missing or of another shape, which fine-tuning
    needs. In a test they would stay as they were drawn, and an AP of 0 says nothing of
    the detector. Weights of losses may be what they like: a test calls no loss.
    """

    # After EMAHook, which exchanges the weights.
    priority = 'LOWEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at what was read, before mmengine loads it.

        Raises:
            OtherModelError: If weights are missing or differ in shape, with their
                names.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        weights = checkpoint.get('state_dict', checkpoint).copy()
        consume_prefix_in_state_dict_if_present(weights, 'module.')
        for name in filter(_of_loss, list(weights)):
            del weights[name]
        # Models rename what older versions of mmdet wrote while they load it.
        try:
            missing = set(model.load_state_dict(weights, strict=False).missing_keys)
        except RuntimeError as error:
            _, *lines = (line.strip('\t. ') for line in str(error).splitlines())
            raise OtherModelError(_message(runner, '; '.join(_some(lines)))) from error
        left = [
            name
            for name, _ in model.named_parameters()
            if name in missing and not _of_loss(name)
        ]
        if left:
            raise OtherModelError(
                _message(runner, f'it has no {", ".join(_some(left))}')
            )


def _message(runner: Runner, why: str) -> str:
    return (
        f'checkpoint: {runner.cfg.load_from} is of another model than the config: {why}'
    )


def _of_loss(name: str) -> bool:
    return any(part.startswith('loss') for part in name.split('.'))


def _some(names: list[str]) -> list[str]:
    more = len(names) - _TOLD
    return [*names[:_TOLD], f'{more} more'] if more > 0 else names
