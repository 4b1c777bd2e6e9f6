# CSRNet + BNM.
_base_ = 'csrnet_small_shanghaitech_a.py'
model = dict(loss=dict(bnm_weight=1.0, bnm_adaptive=False))
