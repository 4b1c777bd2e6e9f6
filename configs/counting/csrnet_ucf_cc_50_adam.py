# Adam in the place of SGD; for the other schemes set model.loss as they do.
_base_ = 'csrnet_ucf_cc_50.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Adam', lr=1e-5, weight_decay=5e-4))
