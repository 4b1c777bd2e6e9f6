"""Takes out of a model's config what costs time and changes nothing for its losses."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import Config

from daal_mmdet.compatibility.shipped_configs import config_folder, walk

__all__ = ['shrink_model']

_MAX_QUERIES = 50
_MAX_SAMPLES = 16
_MAX_CHANNELS = 256
_MAX_DEPTH = 50
_PREPROCESSOR = dict(
    type='DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_mask=True,
    pad_seg=True,
    pad_size_divisor=32,
)


def shrink_model(model: dict) -> dict:
    """Shrink a model's config, in place.

    * No weights are loaded, so batch norm has no statistics to be frozen with.
    * Backbones are ResNet-50 at most, which has the channels of deeper ones.
    * At most 50 queries, since the small images have few places to draw them from, and
      16 samples of a head in each image; fully connected layers of 256 channels.
    * Images keep their size: no batch augmentation.
    * What a single process on a CPU can't run has a plain layer in its place: batch
      norm over several GPUs, upsampling by CARAFE, torchvision's RoIAlign.
    * A tracker is its detector, a semi-supervised model its student, and a teacher's
      config is read from mmdet's folder.

    Args:
        model: The model as plain dicts.

    Returns:
        The model, or the detector in it.
    """
    if 'type' in (model.get('detector') or {}):
        model = model['detector']
    teacher = model.get('teacher_config')
    if isinstance(teacher, str):
        path = config_folder().parent / teacher
        model['teacher_config'] = Config.fromfile(path)._cfg_dict.to_dict()
    # SCNet passes the features of its fully connected layers on.
    relayed = 'feat_relay_head' in (model.get('roi_head') or {})
    for node, key in walk(model):
        value = node[key]
        if key == 'init_cfg' and isinstance(value, Mapping):
            # PVT and Swin name a checkpoint alone.
            if 'checkpoint' in value:
                del node[key]
        elif key in ('pretrained', 'teacher_ckpt'):
            del node[key]
        elif key == 'depth' and isinstance(value, int) and value > _MAX_DEPTH:
            # Darknet's depth is 53.
            node[key] = _MAX_DEPTH if value > 53 else value
        elif key in ('num_queries', 'num_proposals') and isinstance(value, int):
            node[key] = min(value, _MAX_QUERIES)
        elif key == 'type' and value == 'MMSyncBN':
            node[key] = 'BN'
        elif key == 'upsample_cfg' and value.get('type') == 'carafe':
            kept = {k: value[k] for k in ('scale_factor',) if k in value}
            node[key] = dict(kept, type='nearest')
        elif key in ('norm_eval', 'use_torchvision'):
            node[key] = False
        elif key == 'fc_out_channels' and not relayed:
            node[key] = min(value, _MAX_CHANNELS)
        elif key == 'sampler' and isinstance(value, Mapping) and 'num' in value:
            value['num'] = min(value['num'], _MAX_SAMPLES)
    preprocessor = model.get('data_preprocessor') or {}
    # A detector of another library has no preprocessor of mmdet's.
    if 'detector' not in model and preprocessor.get('type') in (
        None,
        'DetDataPreprocessor',
    ):
        preprocessor = model['data_preprocessor'] = dict(_PREPROCESSOR)
    preprocessor.pop('batch_augments', None)
    return model
