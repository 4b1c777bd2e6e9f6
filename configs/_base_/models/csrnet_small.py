# An eighth of CSRNet's channels, from scratch: for trials on a CPU.
_base_ = 'csrnet.py'
model = dict(
    width=0.125,
    data_preprocessor=dict(channels_last=True),
    norm_cfg=dict(type='BN'),
    frontend_init_cfg=None,
    # N(0, 0.01) would let the signal die out on the way through untrained layers.
    init_cfg=dict(
        type='Kaiming',
        layer='Conv2d',
        mode='fan_in',
        override=dict(type='Normal', name='output_layer', std=0.01)))
