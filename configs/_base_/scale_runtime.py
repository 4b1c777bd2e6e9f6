# mmdet's runtime, for trainings that must survive kills and go on exactly.
_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
default_hooks = dict(
    # Two at least: the oldest is removed before the newest is written.
    checkpoint=dict(max_keep_ckpts=3, backend_args=dict(backend='whole_file')))
custom_hooks = [
    dict(type='IterationSeedHook'),
    dict(type='CheckInvalidLossHook', interval=50),
    dict(type='FiniteCheckpointHook')
]
randomness = dict(seed=0)
