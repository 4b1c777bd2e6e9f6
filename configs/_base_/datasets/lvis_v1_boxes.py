# LVIS v1 for detectors without masks: repeat-factor sampling, scales as with mmdet.
_base_ = 'mmdet::_base_/datasets/lvis_v1_instance.py'
data_hint = ('Put LVIS v1 (annotations/lvis_v1_{train,val}.json beside the images of'
             ' COCO 2017, train2017 and val2017), or a link to it, at data/lvis_v1:'
             ' mkdir -p data && ln -s "$(realpath LVIS_FOLDER)" data/lvis_v1')
scales = [(1333, s) for s in (640, 672, 704, 736, 768, 800)]
train_pipeline = [
    dict(type='LoadImageOrSkip', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(
    persistent_workers=False,
    dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='FewClassLVISMetric', metric='bbox')
test_evaluator = val_evaluator
