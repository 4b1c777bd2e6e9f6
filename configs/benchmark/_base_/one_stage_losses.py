# Classification losses of a one-stage head, each with its published settings. What
# depends on the data set, each spec adds.
baseline = 'FocalLoss'
variants = {
    'FocalLoss': dict(),
    'CrossEntropyLoss': {
        'model.bbox_head.loss_cls': dict(
            _delete_=True, type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)
    },
    # As in mmdet's configs/ghm; the box loss stays that of the others.
    'GHMC': {
        'model.bbox_head.loss_cls': dict(
            _delete_=True,
            type='GHMC',
            bins=30,
            momentum=0.75,
            use_sigmoid=True,
            loss_weight=1.0)
    },
    'ClassBalancedFocalLoss': {
        'model.bbox_head.loss_cls': dict(type='ClassBalancedFocalLoss', beta=0.9999)
    },
    'EqualizedFocalLoss': {
        'model.bbox_head.loss_cls': dict(
            type='EqualizedFocalLoss', gamma=2.0, alpha=0.25, scale_factor=8.0)
    },
    'DAALLoss': {'model.bbox_head.loss_cls': dict(type='DAALLoss')},
}
