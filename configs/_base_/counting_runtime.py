# What counting changes in the runtime of the detectors.
_base_ = 'default_runtime.py'
visualizer = dict(_delete_=True, type='CountingVisualizer', vis_backends=[
    dict(type='LocalVisBackend')], name='visualizer')
