# The parts of DAALLoss one by one. The first four are the schemes of the paper.
baseline = 'FocalLoss'
loss_cls = 'model.bbox_head.loss_cls'
variants = {
    'FocalLoss': dict(),
    '+ BNM 1.0': {
        loss_cls: dict(
            type='DAALLoss', class_balance=None, bnm_weight=1.0, bnm_adaptive=False)
    },
    '+ BNM 0.05': {
        loss_cls: dict(
            type='DAALLoss', class_balance=None, bnm_weight=0.05, bnm_adaptive=False)
    },
    '+ adaptive BNM': {
        loss_cls: dict(
            type='DAALLoss', class_balance=None, bnm_weight=0.05, bnm_adaptive=True)
    },
    # The class balance alone.
    'DAALLoss': {loss_cls: dict(type='DAALLoss')},
    'DAALLoss, confusion_weight=0.1': {
        loss_cls: dict(type='DAALLoss', confusion_weight=0.1)
    },
    'DAALLoss, bnm_weight=0.05': {loss_cls: dict(type='DAALLoss', bnm_weight=0.05)},
    'DAALLoss, max_weight=10': {
        loss_cls: dict(type='DAALLoss', class_balance=dict(max_weight=10.0))
    },
    'DAALLoss, bnm_weight=0.05, max_weight=10': {
        loss_cls: dict(
            type='DAALLoss', bnm_weight=0.05, class_balance=dict(max_weight=10.0))
    },
    'DAALLoss, bnm_weight=0.05, UncertaintyAwareSmoothL1': {
        loss_cls: dict(type='DAALLoss', bnm_weight=0.05),
        'model.bbox_head.loss_bbox': dict(type='UncertaintyAwareSmoothL1', beta=0.0),
        'custom_hooks': [
            dict(type='CheckInvalidLossHook', interval=50),
            dict(type='KalmanCovarianceHook')
        ]
    },
}
del loss_cls
