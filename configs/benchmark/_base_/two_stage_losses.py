# Classification losses of a two-stage head. What depends on the data set, each spec
# adds. mmdet takes a softmax of the logits that EQLV2Loss trained with sigmoids.
baseline = 'CrossEntropyLoss'
variants = {
    'CrossEntropyLoss': dict(),
    'SeesawLoss': {
        'model.roi_head.bbox_head.loss_cls': dict(
            _delete_=True, type='SeesawLoss', p=0.8, q=2.0, loss_weight=1.0)
    },
    'EQLV2Loss': {
        'model.roi_head.bbox_head.loss_cls': dict(
            _delete_=True, type='EQLV2Loss', mu=0.8, alpha=4.0, gamma=12)
    },
    'DAALLoss': {'model.roi_head.bbox_head.loss_cls': dict(type='DAALLoss')},
}
