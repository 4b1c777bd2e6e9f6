"""Which detectors of mmdet train with the losses of this package, checked by training.

:mod:`.shipped_configs` finds the configs, :mod:`.loss_merging` puts the losses in,
:mod:`.shrinking` takes out what costs time, :mod:`.random_batch` makes images,
:mod:`.model_check` trains for three iterations, :mod:`.check_runner` does so in
processes of their own, and :mod:`.table` writes what came of it.
"""
