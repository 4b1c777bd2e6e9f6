from daal_mmdet.compatibility.shipped_configs import load_model, walk
from daal_mmdet.compatibility.shrinking import shrink_model


def values(model, key):
    return [node[key] for node, name in walk(model) if name == key]


def test_nothing_is_downloaded():
    model = load_model('mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py')
    assert values(model, 'checkpoint')
    shrink_model(model)
    assert values(model, 'checkpoint') == []
    # A backbone that loads by itself, with no type of initialisation.
    pvt = shrink_model(load_model('pvt/retinanet_pvt-t_fpn_1x_coco.py'))
    assert values(pvt, 'checkpoint') == []
    model = shrink_model(load_model('ld/ld_r18-gflv1-r101_fpn_1x_coco.py'))
    assert 'teacher_ckpt' not in model
    # The teacher's config is read from the package, wherever this runs.
    teacher = model['teacher_config']['model']
    assert teacher['type'] == 'GFL'
    assert values(teacher, 'checkpoint') == []


def test_depth_samples_and_queries_have_a_limit():
    model = load_model('mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py')
    shrink_model(model)
    assert model['backbone']['depth'] == 50
    assert max(sampler['num'] for sampler in values(model, 'sampler')) == 16
    assert model['roi_head']['bbox_head']['fc_out_channels'] == 256
    small = load_model('atss/atss_r18_fpn_8xb8-amp-lsj-200e_coco.py')
    assert shrink_model(small)['backbone']['depth'] == 18
    dino = shrink_model(load_model('dino/dino-4scale_r50_8xb2-12e_coco.py'))
    assert dino['num_queries'] == 50


def test_a_backbone_of_one_depth_keeps_it():
    yolo = shrink_model(load_model('yolo/yolov3_d53_8xb8-320-273e_coco.py'))
    assert yolo['backbone']['depth'] == 53


def test_a_relay_of_features_keeps_its_channels():
    model = load_model('scnet/scnet_r50_fpn_1x_coco.py')
    before = values(model, 'fc_out_channels')
    assert values(shrink_model(model), 'fc_out_channels') == before


def test_a_tracker_is_its_detector():
    model = load_model(
        'ocsort/ocsort_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_'
        'test-mot17halfval.py'
    )
    assert shrink_model(model)['type'] == 'YOLOX'


def test_images_keep_their_size_and_losses_their_options():
    model = load_model('yolox/yolox_s_8xb8-300e_coco.py')
    losses = values(model, 'loss_cls') + values(model, 'loss_bbox')
    shrink_model(model)
    assert values(model, 'batch_augments') == []
    assert model['data_preprocessor']['type'] == 'DetDataPreprocessor'
    assert values(model, 'loss_cls') + values(model, 'loss_bbox') == losses
    boxinst = shrink_model(load_model('boxinst/boxinst_r50_fpn_ms-90k_coco.py'))
    assert boxinst['data_preprocessor']['type'] == 'BoxInstDataPreprocessor'


def test_what_needs_several_gpus_or_one_is_replaced():
    name = 'mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-50e_coco.py'
    model = load_model(f'strong_baselines/{name}')
    assert 'MMSyncBN' in values(model, 'type')
    shrink_model(model)
    assert 'MMSyncBN' not in values(model, 'type')
    assert model['roi_head']['bbox_head']['norm_cfg']['type'] == 'BN'
    carafe = shrink_model(load_model('carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py'))
    assert values(carafe, 'upsample_cfg') == [
        {'type': 'nearest'},
        {'type': 'nearest', 'scale_factor': 2},
    ]
    crowddet = load_model('crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py')
    assert values(crowddet, 'use_torchvision') == [True]
    assert values(shrink_model(crowddet), 'use_torchvision') == [False]
