# The authors' recipe: 400 epochs, in each of which their published code sees every
# image four times. These data sets have no validation part; the held-out images are
# counted once, at the end.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1600, val_interval=1600)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-7, momentum=0.95, weight_decay=5e-4))
