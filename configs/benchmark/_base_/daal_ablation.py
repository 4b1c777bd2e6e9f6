# The parts of DAALLoss one by one. The first four are the schemes of the paper.
baseline = 'FocalLoss'
loss_cls = 'model.bbox_head.loss_cls'
box_loss = {
    'model.bbox_head.loss_bbox': dict(type='UncertaintyAwareSmoothL1', beta=0.0),
    'custom_hooks': [
        dict(type='CheckInvalidLossHook', interval=50),
        dict(type='KalmanCovarianceHook')
    ]
}
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
    '+ class weights': {loss_cls: dict(type='DAALLoss', confusion_weight=0.0)},
    # The default: class weights and the cross entropy among the classes.
    'DAALLoss': {loss_cls: dict(type='DAALLoss')},
    '+ class weights, adaptive BNM': {
        loss_cls: dict(type='DAALLoss', confusion_weight=0.0, bnm_weight=0.05)
    },
    '+ class weights of up to 10': {
        loss_cls: dict(
            type='DAALLoss',
            confusion_weight=0.0,
            class_balance=dict(max_weight=10.0))
    },
    '+ class weights of up to 10, adaptive BNM': {
        loss_cls: dict(
            type='DAALLoss',
            confusion_weight=0.0,
            bnm_weight=0.05,
            class_balance=dict(max_weight=10.0))
    },
    '+ class weights, adaptive BNM, UncertaintyAwareSmoothL1': {
        loss_cls: dict(type='DAALLoss', confusion_weight=0.0, bnm_weight=0.05),
        **box_loss
    },
    'DAALLoss, adaptive BNM': {loss_cls: dict(type='DAALLoss', bnm_weight=0.05)},
    'DAALLoss, UncertaintyAwareSmoothL1': {
        loss_cls: dict(type='DAALLoss'),
        **box_loss
    },
}
del loss_cls, box_loss
