"""Crowd counting: CSRNet, its data sets, density maps and metric."""

from daal_mmdet.counting.counting_metric import CountingMetric, count_errors
from daal_mmdet.counting.crowd_data_preprocessor import CrowdDataPreprocessor
from daal_mmdet.counting.crowd_dataset import CrowdDataset
from daal_mmdet.counting.csrnet import CSRNet
from daal_mmdet.counting.density_cache import DensityCache
from daal_mmdet.counting.density_map import density_map, head_sigmas, pool_density
from daal_mmdet.counting.pack_crowd_inputs import PackCrowdInputs
from daal_mmdet.counting.points import (
    read_shanghaitech_points,
    read_ucf_cc_50_points,
)
from daal_mmdet.counting.shanghaitech_dataset import ShanghaiTechDataset
from daal_mmdet.counting.transforms import (
    LoadDensityMap,
    RandomCrowdCrop,
    RandomCrowdFlip,
    RandomCrowdScale,
)
from daal_mmdet.counting.ucf_cc_50_dataset import UCFCC50Dataset
from daal_mmdet.counting.vgg_front_end import VGGFrontEnd

__all__ = [
    'CSRNet',
    'CountingMetric',
    'CrowdDataPreprocessor',
    'CrowdDataset',
    'DensityCache',
    'LoadDensityMap',
    'PackCrowdInputs',
    'RandomCrowdCrop',
    'RandomCrowdFlip',
    'RandomCrowdScale',
    'ShanghaiTechDataset',
    'UCFCC50Dataset',
    'VGGFrontEnd',
    'count_errors',
    'density_map',
    'head_sigmas',
    'pool_density',
    'read_shanghaitech_points',
    'read_ucf_cc_50_points',
]
