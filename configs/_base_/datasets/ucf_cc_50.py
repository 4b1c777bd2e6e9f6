data_hint = ('Put UCF_CC_50, or a link to it, at data/UCF_CC_50:'
             ' mkdir -p data && ln -s "$(realpath UCF_CC_50_FOLDER)" data/UCF_CC_50')
# Another place: --cfg-options {train,val,test}_dataloader.dataset.data_root=...
data_root = 'data/UCF_CC_50'
# Of the five-fold cross validation: 0 to 4.
fold = 0
load_density = dict(
    type='LoadDensityMap', kernel='adaptive',
    cache_dir='work_dirs/density_maps/ucf_cc_50')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    load_density,
    dict(type='RandomCrowdCrop', crop_size=0.5),
    dict(type='RandomCrowdFlip', prob=0.5),
    dict(type='PackCrowdInputs'),
]
# For trials on a CPU: half size. A crop is taken first, so that it alone is resized.
halve = dict(type='RandomCrowdScale', scale_range=(0.5, 0.5))
small_train_pipeline = [
    dict(type='LoadImageFromFile'),
    load_density,
    dict(type='RandomCrowdCrop', crop_size=256),
    halve,
    dict(type='RandomCrowdFlip', prob=0.5),
    dict(type='PackCrowdInputs'),
]
small_test_pipeline = [
    dict(type='LoadImageFromFile'),
    load_density,
    halve,
    dict(type='PackCrowdInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    load_density,
    dict(type='PackCrowdInputs'),
]
train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='UCFCC50Dataset',
        data_root=data_root,
        fold=fold,
        split='train',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='UCFCC50Dataset',
        data_root=data_root,
        fold=fold,
        split='test',
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CountingMetric')
test_evaluator = val_evaluator
