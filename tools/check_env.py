"""Check that PyTorch, OpenCV, mmcv's compiled ops, MMDetection and daal_mmdet work.

Each part is used, not only imported; for what fails, the line says what mends it.

    python tools/check_env.py
"""

import argparse
import json
import sys
from collections.abc import Callable

MEND = {
    'torch': 'In the .venv of this project: rm -rf .venv && make setup REUSE_TORCH=0',
    'cv2': (
        'On a server without libGL: '
        'python -m pip install --force-reinstall --no-deps opencv-python-headless'
    ),
    'mmcv.ops': (
        'mmcv was built without its ops, or against another PyTorch. In the .venv of '
        'this project: make setup REBUILD_MMCV=1. Elsewhere: pip install ninja '
        "'setuptools>=80,<82' wheel psutil && CFLAGS='-g0 -O2' pip install --no-deps "
        '--no-build-isolation --no-cache-dir --force-reinstall onedl-mmcv==2.3.6'
    ),
    'mmdet': 'python -m pip install onedl-mmdetection==3.5.1, or mmdet>=3.0',
    'daal_mmdet': 'In the folder of this project: python -m pip install -e .',
}


def check_torch() -> str:
    """Add two tensors."""
    import torch

    if float((torch.zeros(2) + 1).sum()) != 2:
        raise RuntimeError('0 + 1 is not 1')
    return torch.__version__


def check_cv2() -> str:
    """Resize an image."""
    import cv2
    import numpy as np

    cv2.resize(np.zeros((4, 4, 3), np.uint8), (8, 8))
    return cv2.__version__


def check_mmcv_ops() -> str:
    """Suppress one of two boxes that overlap, on the CPU and on a GPU if there."""
    import mmcv
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    _, kept = nms(boxes, scores, iou_threshold=0.5)
    if kept.tolist() != [0, 2]:
        raise RuntimeError(f'nms kept boxes {kept.tolist()} instead of [0, 2]')
    if not torch.cuda.is_available():
        return f'{mmcv.__version__}, CPU'
    try:
        nms(boxes.cuda(), scores.cuda(), iou_threshold=0.5)
    except RuntimeError:
        return (
            f'{mmcv.__version__}, CPU only: training on the GPU will stop at NMS. '
            f'Install the CUDA {torch.version.cuda} toolkit (nvcc), then: '
            'make setup REBUILD_MMCV=1; or install a prebuilt wheel of mmcv'
        )
    return f'{mmcv.__version__}, CPU and CUDA'


def check_mmdet() -> str:
    """Build a RetinaNet."""
    import mmdet
    import mmdet.models
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(
            dict(
                type='RetinaNet',
                backbone=dict(type='ResNet', depth=18, out_indices=(2, 3)),
                neck=dict(
                    type='FPN', in_channels=[256, 512], out_channels=16, num_outs=3
                ),
                bbox_head=dict(
                    type='RetinaHead', num_classes=2, in_channels=16, feat_channels=16
                ),
            )
        )
    return mmdet.__version__


def check_daal_mmdet() -> str:
    """Import the package."""
    import daal_mmdet

    return daal_mmdet.__version__


CHECKS: dict[str, Callable[[], str]] = {
    'torch': check_torch,
    'cv2': check_cv2,
    'mmcv.ops': check_mmcv_ops,
    'mmdet': check_mmdet,
    'daal_mmdet': check_daal_mmdet,
}


def main() -> int:
    """Run the checks in order up to the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', action='store_true', help='end with a line of JSON')
    args = parser.parse_args()
    result = {'passed': {}, 'failed': None, 'error': '', 'mend': ''}
    for name, check in CHECKS.items():
        try:
            result['passed'][name] = check()
        # Whatever a broken binary package raises is a finding here.
        except Exception as error:
            result.update(failed=name, mend=MEND[name])
            result['error'] = f'{type(error).__name__}: {error}'
            print(f'{name}: FAILED\n  {result["error"]}\n  {MEND[name]}')
            break
        print(f'{name}: {result["passed"][name]}')
    if args.json:
        print(json.dumps(result))
    return int(result['failed'] is not None)


if __name__ == '__main__':
    sys.exit(main())
