"""Metadata of the package; pyproject.toml holds the settings of the tools.

Neither PyTorch nor a distribution of mmcv, mmengine or mmdet is required: each of the
mm* packages has two distributions under one import name, so that requiring one could
replace the other in a user's environment. The extras name them for new environments.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = (ROOT / 'daal_mmdet' / '__init__.py').read_text(encoding='utf-8')
VERSION = re.search(r"^__version__ = '([^']+)'$", INIT, re.MULTILINE)
if VERSION is None:
    raise RuntimeError("daal_mmdet/__init__.py has no line __version__ = '...'")

TEST = ['filterpy', 'hypothesis>=6.80', 'lvis', 'pytest>=7.4', 'statsmodels']

setup(
    name='daal_mmdet',
    version=VERSION.group(1),
    description=(
        'Dynamically adaptive adjustment losses for MMDetection: detectors that '
        'learn the few classes of imbalanced data'
    ),
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The daal_mmdet contributors',
    license='Apache-2.0',
    keywords='object detection, long tail, class imbalance, focal loss, Kalman filter',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['daal_mmdet', 'daal_mmdet.*']),
    python_requires='>=3.10',
    # mmdet requires them too; without bounds pip replaces none that is there.
    install_requires=[
        'matplotlib',
        'numpy',
        'pillow',
        'pycocotools',
        'scipy',
        'terminaltables',
        'tqdm',
    ],
    extras_require={
        'onedl': [
            'onedl-mmcv>=2.3',
            'onedl-mmengine>=0.10.8',
            'onedl-mmdetection>=3.5',
        ],
        # The newest mmdet, 3.3.0, refuses mmcv 2.2 when it is imported.
        'openmmlab': ['mmcv>=2.0.0,<2.2.0', 'mmengine>=0.10.0', 'mmdet>=3.2.0'],
        'forecasting': ['statsmodels'],
        'lvis': ['lvis'],
        # PyTorch's CUDA builds bring it. Not for the tests, which skip what needs it:
        # it takes 1 GB, and has wheels for Linux only.
        'triton': ['triton>=3.0; sys_platform == "linux"'],
        # For mmdet's PAA and LAD, so that tools/check_compatibility.py can train them.
        'compatibility': ['scikit-learn'],
        'test': TEST,
        'dev': [*TEST, 'mypy>=1.8', 'ruff>=0.17,<0.18'],
    },
    zip_safe=False,
)
