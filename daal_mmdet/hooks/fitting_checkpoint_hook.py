"""No test, and no resumed training, of weights that are not the checkpoint's."""

from __future__ import annotations

from collections import OrderedDict

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from daal_mmdet.first_few import first_few

__all__ = ['FittingCheckpointHook', 'OtherModelError']

# Parts of a model that a test does not call, by how their names begin.
_OF_TRAINING = ('loss', 'dn_query_generator')


class OtherModelError(ValueError):
    """A checkpoint leaves weights of the model as they were drawn."""


class FittingCheckpointHook(Hook):
    """Stop where a checkpoint does not fill the model that it is loaded into.

    mmengine passes over weights that are missing or of another shape, which fine-tuning
    needs. In a test they would stay as they were drawn, and an AP of 0 says nothing of
    the detector; a resumed training would go on with them, or stop at the optimizer's
    state, which does not fit either. Weights of what only a training calls may be what
    they like: of losses and of the denoising queries of DINO, whose number is that of
    the classes, which a config for a test of Grounding DINO may choose.

    Args:
        asked_by: The option or key that names the checkpoint, for messages.
    """

    # After EMAHook, which exchanges the weights.
    priority = 'LOWEST'

    def __init__(self, asked_by: str = 'checkpoint') -> None:
        self.asked_by = asked_by

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at what was read, before mmengine loads it.

        Raises:
            OtherModelError: If weights are missing or differ in shape, with their
                names.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        saved = checkpoint.get('state_dict', checkpoint)
        weights = OrderedDict(
            (name.removeprefix('module.'), weight)
            for name, weight in saved.items()
            if not _of_training(name)
        )
        # Models rename what older versions of mmdet wrote while they load it; this says
        # which version wrote it.
        weights._metadata = getattr(saved, '_metadata', {})
        try:
            missing = set(model.load_state_dict(weights, strict=False).missing_keys)
        except RuntimeError as error:
            _, *lines = (line.strip('\t. ') for line in str(error).splitlines())
            raise self._error(runner, first_few(lines, separator='; ')) from error
        every = list(model.named_parameters(remove_duplicate=False))
        # A weight that has several names is there under any of them.
        filled = {id(weight) for name, weight in every if name not in missing}
        left = [
            name
            for name, weight in every
            if id(weight) not in filled and not _of_training(name)
        ]
        if left:
            raise self._error(runner, f'it has no {first_few(left)}')

    def _error(self, runner: Runner, why: str) -> OtherModelError:
        # mmengine looks for the latest of the work dir where a config says no file.
        path = runner.cfg.load_from or f'the checkpoint in {runner.work_dir}'
        return OtherModelError(
            f'{self.asked_by}: {path} is of another model than the config: {why}'
        )


def _of_training(name: str) -> bool:
    return any(part.startswith(_OF_TRAINING) for part in name.split('.'))
