# CSRNet + A-BNM: the proportion follows the Kalman gain.
_base_ = 'csrnet_small_shanghaitech_a.py'
model = dict(loss=dict(bnm_weight=0.05, bnm_adaptive=True))
