"""Tell where a test numbers the classes otherwise than the training did."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

__all__ = ['TrainedClassesHook']


class TrainedClassesHook(Hook):
    """Compare the classes of the test data with those that a checkpoint was trained on.

    A detector gives numbers of classes. mmengine writes the names that they had in the
    training into each checkpoint, and neither mmengine nor mmdet compares them: where
    the test data have another class under a number, its AP is that of wrong labels, and
    low. This warns, and names the first such number. Nothing is said of classes that
    only one of both has after all others, of checkpoints without names, and of models
    whose columns are words, as those of Grounding DINO.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at what was read; ``runner`` is one that tests."""
        parts = (name.rpartition('.')[2] for name, _ in runner.model.named_modules())
        if 'language_model' in parts:
            return
        trained = _classes_of(checkpoint.get('meta') or {})
        tested = getattr(runner.test_loop.dataloader.dataset, 'metainfo', {})
        pairs = zip(trained, tested.get('classes') or (), strict=False)
        for label, (learned, judged) in enumerate(pairs):
            if learned != judged:
                runner.logger.warning(
                    f'{runner.cfg.load_from} was trained with {learned!r} as class '
                    f'number {label}, and test_dataloader.dataset has {judged!r} '
                    'there: AP is that of wrong labels, unless these are two names of '
                    'one class'
                )
                return


def _classes_of(meta: dict) -> tuple[str, ...]:
    """Names of the classes in a checkpoint, as MMEngine or MMDetection 2 wrote them."""
    names = {**meta, **(meta.get('dataset_meta') or {})}
    return next((v for k, v in names.items() if k.lower() == 'classes' and v), ())
