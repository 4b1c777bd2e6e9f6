# The authors' recipe. Their published code sees each image four times an epoch.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=400, val_interval=10)
test_cfg = dict(type='TestLoop')
val_cfg = dict(type='ValLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-7, momentum=0.95, weight_decay=5e-4))
