# CSRNet alone, the first of the four schemes, by the authors' recipe.
_base_ = [
    '../_base_/models/csrnet.py',
    '../_base_/datasets/shanghaitech_a.py',
    '../_base_/counting_runtime.py',
    '../_base_/schedules/csrnet_sgd.py',
]
