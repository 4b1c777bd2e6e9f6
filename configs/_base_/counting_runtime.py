# What counting changes in the runtime of the detectors.
_base_ = 'default_runtime.py'
default_hooks = dict(checkpoint=dict(interval=10))
visualizer = dict(type='CountingVisualizer')
