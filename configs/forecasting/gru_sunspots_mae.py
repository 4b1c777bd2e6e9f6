# Plain L1: what KalmanLoss comes to once its gain has settled.
_base_ = 'gru_sunspots_mse.py'
model = dict(loss=dict(type='L1Loss'))
