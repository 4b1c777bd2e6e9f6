_base_ = 'gru_sunspots_mse.py'
model = dict(loss=dict(type='AdaptiveDynamicLoss'))
