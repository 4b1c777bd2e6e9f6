# CSRNet + BNM.
_base_ = 'csrnet_shanghaitech_b.py'
model = dict(loss=dict(bnm_weight=1.0, bnm_adaptive=False))
