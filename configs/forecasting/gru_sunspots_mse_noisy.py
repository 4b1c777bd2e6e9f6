# The targets of the training, and only they, are noisy.
_base_ = 'gru_sunspots_mse.py'
train_dataloader = dict(dataset=dict(target_noise=dict(std=0.5, seed=0)))
