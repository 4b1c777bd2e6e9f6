# CSRNet + A-BNM: the proportion follows the Kalman gain.
_base_ = 'csrnet_shanghaitech_b.py'
model = dict(loss=dict(bnm_weight=0.05, bnm_adaptive=True))
