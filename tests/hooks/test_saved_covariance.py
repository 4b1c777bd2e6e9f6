import numpy as np
import plot_covariance
import pytest
import torch
from PIL import Image

from daal_mmdet.covariance_bank import CovarianceBank
from daal_mmdet.hooks.kalman_covariance_hook import CHECKPOINT_KEY
from daal_mmdet.hooks.saved_covariance import SavedCovariance


@pytest.fixture
def checkpoint(tmp_path):
    options = dict(measurement_noise=0.5, process_noise=0, forgetting=1.0)
    bank = CovarianceBank('full', **options)
    bank.add_level(2, 3, 4)
    bank.add_level(2, 1, 2)
    # Level 0, row 1, column 2, template 1; and level 1, column 1, template 0.
    bank.step(torch.tensor([(1 * 4 + 2) * 2 + 1, 24 + 2]), torch.zeros(2, 4))
    by_class = CovarianceBank()
    by_class.add_level(2)
    states = {
        'rpn_head.loss_bbox': {'keys': [0, 1], **bank.state_dict()},
        'roi_head.bbox_head.loss_bbox': {'keys': [0], **by_class.state_dict()},
        'never_called.loss_bbox': {'keys': [], **CovarianceBank().state_dict()},
    }
    path = tmp_path / 'epoch_1.pth'
    meta = dict(dataset_meta=dict(classes=('cat', 'dog')))
    torch.save({CHECKPOINT_KEY: states, 'meta': meta, 'state_dict': {}}, path)
    return path


def test_slots_come_back_where_they_were(checkpoint):
    rpn, roi = SavedCovariance.load(checkpoint)
    assert (rpn.name, roi.name) == (
        'rpn_head.loss_bbox',
        'roi_head.bbox_head.loss_bbox',
    )
    first, second = rpn.measured()
    assert first.shape == (3, 4, 2)
    assert np.argwhere(first).tolist() == [[1, 2, 1]]
    assert np.argwhere(second).tolist() == [[0, 1, 0]]
    np.testing.assert_allclose(rpn.deviations()[0][1, 2, 1], (1 / 3) ** 0.5, rtol=1e-6)
    # The level is the mean of it and of the prior, its template of it and the level.
    np.testing.assert_allclose(
        rpn.deviations()[0][0, 0], [(2 / 3) ** 0.5, (1 / 2) ** 0.5], rtol=1e-6
    )
    assert rpn.template_names is None
    assert roi.template_names == ['cat', 'dog']


def test_the_tool_draws_one_image_a_loss(checkpoint, tmp_path, capsys):
    plot_covariance.main([str(checkpoint), '--out', str(tmp_path / 'maps')])
    names = sorted(path.name for path in (tmp_path / 'maps').iterdir())
    assert names == [
        'covariance_roi_head.bbox_head.loss_bbox.png',
        'covariance_rpn_head.loss_bbox.png',
    ]
    assert str(tmp_path / 'maps' / names[0]) in capsys.readouterr().out
    with Image.open(tmp_path / 'maps' / names[1]) as image:
        assert min(image.size) > 100


def test_the_tool_says_in_a_line_what_it_cannot_draw(checkpoint, tmp_path):
    out = ['--out', str(tmp_path / 'maps')]
    with pytest.raises(SystemExit, match=r"checkpoint: there is no file '.*no\.pth'"):
        plot_covariance.main([str(tmp_path / 'no.pth'), *out])
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(SystemExit, match=r"damaged\.pth can't be read: it does not lo"):
        plot_covariance.main([str(damaged), *out])
    torch.save({'state_dict': {}}, damaged)
    with pytest.raises(SystemExit, match='holds no covariance'):
        plot_covariance.main([str(damaged), *out])
    assert not (tmp_path / 'maps').exists()
    for folder in (damaged, damaged / 'maps', '/proc/maps'):
        with pytest.raises(SystemExit, match=f"^--out: '{folder}' cannot be written"):
            plot_covariance.main([str(checkpoint), '--out', str(folder)])


def test_what_cannot_be_drawn_is_said(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no\.pth: no such checkpoint'):
        SavedCovariance.load(tmp_path / 'no.pth')
    torch.save({'state_dict': {}}, checkpoint)
    with pytest.raises(
        ValueError, match="holds no covariance; .*'KalmanCovarianceHook"
    ):
        SavedCovariance.load(checkpoint)
