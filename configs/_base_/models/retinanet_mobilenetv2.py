# A RetinaNet that trains on two CPU cores: MobileNetV2 and an FPN of 64 channels.
#
# From scratch by default, with a backbone of half width. The environment variable
# BACKBONE_CHECKPOINT names ImageNet weights of a MobileNetV2 1.0 with ReLU, in mmdet's
# key layout; the backbone then has full width, keeps its batch statistics and has its
# first three stages frozen, as fine-tuning on few images asks for.
backbone_checkpoint = '{{$BACKBONE_CHECKPOINT:none}}'

# The last convolution of mmdet's MobileNetV2 feeds no level of the FPN.
find_unused_parameters = True
norm_cfg = dict(type='BN', requires_grad=True)
if backbone_checkpoint != 'none':
    backbone = dict(
        widen_factor=1.0,
        act_cfg=dict(type='ReLU'),
        frozen_stages=3,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=backbone_checkpoint))
    backbone_channels = [32, 96, 320]
else:
    backbone = dict(widen_factor=0.5, norm_eval=False)
    backbone_channels = [16, 48, 160]

model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='MobileNetV2',
        out_indices=(2, 4, 6),
        norm_cfg=norm_cfg,
        **backbone),
    neck=dict(
        type='FPN',
        in_channels=backbone_channels,
        out_channels=64,
        add_extra_convs='on_input',
        num_outs=4,
        norm_cfg=norm_cfg),
    bbox_head=dict(
        type='RetinaHead',
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # The levels share these layers. Batch norm would train on the statistics of
        # each level alone and evaluate with those of all, which made AP erratic.
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=2,
            scales_per_octave=2,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(
            type='FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100))
