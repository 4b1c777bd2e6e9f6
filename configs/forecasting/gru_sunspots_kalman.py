# A random walk for each value: F = H = 1.
_base_ = 'gru_sunspots_mse.py'
model = dict(
    loss=dict(
        type='KalmanLoss', state_dim=1, F=[[1.0]], H=[[1.0]], Q=[[0.1]], R=[[0.1]]))
