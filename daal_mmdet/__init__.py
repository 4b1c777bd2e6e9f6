"""daal_mmdet: losses for MMDetection that learn the few classes of imbalanced data.

Importing the package registers everything it holds with mmdet's registries::

    custom_imports = dict(imports=['daal_mmdet'], allow_failed_imports=False)
"""

__version__ = '0.1.0'

try:
    import mmdet
    from mmengine.utils import digit_version
except ImportError as error:
    raise ImportError(
        'daal_mmdet extends MMDetection, which does not import here '
        f'({error}). Install it with pip install "daal_mmdet[onedl]" (the maintained '
        'forks) or "daal_mmdet[openmmlab]" (the originals)'
    ) from error
if digit_version(mmdet.__version__) < digit_version('3.2.0'):
    raise ImportError(
        f'daal_mmdet needs MMDetection 3.2 or newer, and here is {mmdet.__version__}'
    )

from daal_mmdet import (
    counting,
    datasets,
    evaluation,
    forecasting,
    hooks,
    losses,
    visualization,
    whole_file_backend,
)

__all__ = [
    '__version__',
    'counting',
    'datasets',
    'evaluation',
    'forecasting',
    'hooks',
    'losses',
    'visualization',
    'whole_file_backend',
]
