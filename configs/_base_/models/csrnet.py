# CSRNet as published. init_cfg of the front end needs a network and torchvision, or
# a file: --cfg-options model.frontend_init_cfg.checkpoint=vgg16-397923af.pth
model = dict(
    type='CSRNet',
    data_preprocessor=dict(type='CrowdDataPreprocessor'),
    frontend_init_cfg=dict(type='Pretrained', checkpoint='torchvision://vgg16'),
    # CSRNet alone, the first scheme.
    loss=dict(type='CountingLoss', bnm_weight=0.0))
