import json
from collections import OrderedDict
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from PIL import Image


@pytest.fixture(autouse=True)
def _mmdet_scope():
    """Registries of mmdet, as its tools set them up; nothing else is registered."""
    init_default_scope('mmdet')


@pytest.fixture(autouse=True)
def _no_visualizer_of_another_test(monkeypatch):
    """A runner would take up the one that an earlier test left, with its folder."""
    classes = [Visualizer]
    for cls in classes:  # grows as it goes
        # Each class keeps its own instances.
        monkeypatch.setattr(cls, '_instance_dict', OrderedDict())
        classes.extend(cls.__subclasses__())


@pytest.fixture(autouse=True)
def hub(monkeypatch):
    """A MessageHub that has seen no iteration, as before any runner."""
    monkeypatch.setattr(MessageHub, '_instance_dict', OrderedDict())
    return MessageHub.get_current_instance()


@pytest.fixture
def shipped_config():
    """Load one of the configs that the installed mmdet ships."""

    def load(name: str) -> Config:
        path = Path(mmdet.__file__).parent / '.mim' / 'configs' / name
        return Config.fromfile(path)

    return load


@pytest.fixture
def one_image_batch():
    """A preprocessed batch of one small random image with two boxes."""

    def make(model: torch.nn.Module, config: dict) -> tuple:
        rng = np.random.default_rng(0)
        image = torch.from_numpy(rng.integers(0, 255, (3, 128, 128), dtype=np.uint8))
        sample = DetDataSample(
            metainfo={
                'img_shape': (128, 128),
                'ori_shape': (128, 128),
                'scale_factor': (1.0, 1.0),
                'batch_input_shape': (128, 128),
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 20.0, 60.0, 90.0], [50.0, 40.0, 120.0, 110.0]]),
            labels=torch.tensor([1, 3]),
        )
        data = {'inputs': [image], 'data_samples': [sample]}
        data = model.data_preprocessor(data, training=True)
        return data['inputs'], data['data_samples']

    return make


@pytest.fixture
def small_coco(tmp_path):
    """Point a config of this project at six small random images."""
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for i in range(6):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
        images.append({'id': i, 'file_name': f'{i}.png', 'width': 64, 'height': 64})
        box = dict(bbox=[10, 12, 30, 20], area=600, iscrowd=0)
        boxes.append(box | dict(id=i + 1, image_id=i, category_id=i % 3 + 1))
    categories = [{'id': i + 1, 'name': n} for i, n in enumerate('abc')]
    document = dict(images=images, annotations=boxes, categories=categories)
    (tmp_path / 'data.json').write_text(json.dumps(document))
    file = f'{tmp_path}/data.json'

    def use(config: Config) -> Config:
        for part in ('train', 'val', 'test'):
            loader = config[f'{part}_dataloader']
            loader.batch_size = 2
            loader.dataset.update(
                data_root=f'{tmp_path}/',
                ann_file='data.json',
                data_prefix=dict(img=''),
                metainfo=dict(classes=('a', 'b', 'c')),
            )
            for step in loader.dataset.pipeline:
                if step.type == 'Resize':
                    step.scale = (64, 64)
        for part in ('val', 'test'):
            config[f'{part}_evaluator'].update(ann_file=file, train_ann_file=file)
        config.default_hooks.logger.interval = 1
        return config

    return use
