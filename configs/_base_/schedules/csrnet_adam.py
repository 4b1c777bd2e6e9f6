# The other recipe in common use.
_base_ = 'csrnet_sgd.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Adam', lr=1e-5, weight_decay=5e-4))
