# LVIS v1 with masks: mmdet's own pipelines and repeat-factor sampling.
_base_ = 'mmdet::_base_/datasets/lvis_v1_instance.py'
data_hint = ('Put LVIS v1 (annotations/lvis_v1_{train,val}.json beside the images of'
             ' COCO 2017, train2017 and val2017), or a link to it, at data/lvis_v1:'
             ' mkdir -p data && ln -s "$(realpath LVIS_FOLDER)" data/lvis_v1')
scales = [(1333, s) for s in (640, 672, 704, 736, 768, 800)]
train_pipeline = [
    dict(type='LoadImageOrSkip', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
train_dataloader = dict(
    persistent_workers=False,
    dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_evaluator = dict(type='FewClassLVISMetric', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
