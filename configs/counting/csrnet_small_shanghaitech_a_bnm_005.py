# CSRNet + 0.05 BNM.
_base_ = 'csrnet_small_shanghaitech_a.py'
model = dict(loss=dict(bnm_weight=0.05, bnm_adaptive=False))
