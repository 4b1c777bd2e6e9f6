# COCO 2017, with AP of the few, medium and many classes beside the usual figures.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'
data_hint = ('Put COCO 2017 (annotations, train2017, val2017), or a link to it, at'
             ' data/coco: mkdir -p data && ln -s "$(realpath COCO_FOLDER)" data/coco')
train_pipeline = [
    dict(type='LoadImageOrSkip', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
# New workers in every epoch: they repeat their augmentations after a resume.
train_dataloader = dict(
    persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(
    type='FewClassCocoMetric',
    train_ann_file='data/coco/annotations/instances_train2017.json')
test_evaluator = val_evaluator
