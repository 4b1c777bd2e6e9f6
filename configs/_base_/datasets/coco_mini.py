# 126 + 128 images of COCO 2017 with its 80 classes, from 254 persons down to none. The
# second part is for testing; there is no third one, so that nothing may be chosen here.
data_hint = ('Put COCO-mini, or a link to it, at data/coco_mini:'
             ' mkdir -p data && ln -s "$(realpath COCO_MINI_FOLDER)" data/coco_mini')
dataset_type = 'CocoDataset'
data_root = 'data/coco_mini/'
img_scale = (384, 288)
backend_args = None

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
        backend_args=backend_args))
test_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_evaluator = dict(
    type='FewClassCocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    train_ann_file=data_root + 'annotations/instances_train2017.json',
    groups='terciles',
    metric='bbox',
    classwise=True,
    backend_args=backend_args)
val_dataloader = None
val_evaluator = None
