from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from daal_mmdet import cli

CONFIG = (
    Path(__file__).parents[1] / 'configs' / 'bccd' / 'retinanet_mobilenetv2_daal.py'
)


@pytest.mark.parametrize('on_cpu', [True, False])
def test_convolutions_lie_channels_last_on_a_cpu_only(tmp_path, monkeypatch, on_cpu):
    config = Config.fromfile(CONFIG)
    config.work_dir, config.launcher = str(tmp_path), 'none'
    monkeypatch.setattr(cli, 'run_on_cpu', lambda: on_cpu)
    model = cli.build_runner(config).model
    weight = model.bbox_head.cls_convs[0].conv.weight
    assert weight.shape == (64, 64, 3, 3)
    assert weight.is_contiguous(memory_format=torch.channels_last) is on_cpu
    features = model.backbone(torch.rand(2, 3, 64, 64))
    assert features[0].is_contiguous(memory_format=torch.channels_last) is on_cpu
