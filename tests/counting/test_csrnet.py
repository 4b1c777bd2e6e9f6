import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import nn

from daal_mmdet.counting import CrowdDataPreprocessor, CSRNet, VGGFrontEnd

SMALL = dict(width=1 / 16, loss=dict(type='CountingLoss', bnm_weight=0.0))
# Configuration D of the VGG paper up to conv4_3, as torchvision numbers the layers.
VGG16 = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
}


@pytest.fixture(scope='module')
def vgg16_state():
    """A state dict with the keys and shapes of torchvision's vgg16."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, shape in {**VGG16, 24: (512, 512), 26: (512, 512)}.items():
        weight = torch.randn(*shape, 3, 3, generator=generator)
        state[f'features.{index}.weight'] = weight
        state[f'features.{index}.bias'] = torch.randn(shape[0], generator=generator)
    state['classifier.6.bias'] = torch.randn(1000, generator=generator)
    return state


def test_layers_are_those_of_the_paper():
    model = CSRNet()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    front, back, last = convolutions[:10], convolutions[10:16], convolutions[16]
    assert [(c.out_channels, c.in_channels) for c in front] == list(VGG16.values())
    assert [c.out_channels for c in back] == [512, 512, 512, 256, 128, 64]
    assert all(c.dilation == (2, 2) and c.kernel_size == (3, 3) for c in back)
    assert (last.kernel_size, last.in_channels, last.out_channels) == ((1, 1), 64, 1)
    assert len(convolutions) == 17
    # 16.26 million, as the published network.
    assert sum(p.numel() for p in model.parameters()) == 16_263_489


def test_initialisers_may_be_a_list():
    init = [
        dict(type='Constant', layer='Conv2d', val=0.5),
        dict(type='Constant', layer='BatchNorm2d', val=2.0),
    ]
    front_end = VGGFrontEnd(1 / 64, dict(type='BN'), init)
    front_end.init_weights()
    assert (front_end.features[0].weight == 0.5).all()
    assert (front_end.features[1].weight == 2.0).all()


def test_vgg16_weights_load_key_by_key(vgg16_state, tmp_path):
    path = tmp_path / 'vgg16.pth'
    torch.save(vgg16_state, path)
    init = dict(type='Pretrained', checkpoint=str(path))
    model = CSRNet(frontend_init_cfg=init)
    model.init_weights()
    own = model.frontend.state_dict()
    assert set(own) == {f'features.{i}.{k}' for i in VGG16 for k in ('weight', 'bias')}
    for name, value in own.items():
        assert torch.equal(value, vgg16_state[name]), name
    # The back end is the authors' N(0, 0.01).
    weight = model.backend[0].weight
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.backend[0].bias.abs().max() == 0

    # It computes what VGG-16 computes up to conv4_3.
    layers = []
    for index in VGG16:
        conv = nn.Conv2d(*reversed(VGG16[index]), 3, padding=1)
        conv.load_state_dict(
            {k: 0.05 * vgg16_state[f'features.{index}.{k}'] for k in ('weight', 'bias')}
        )
        layers += [conv, nn.ReLU()]
        if index + 2 in (4, 9, 16):
            layers.append(nn.MaxPool2d(2, 2))
    for name, value in own.items():
        own[name] = 0.05 * value
    model.frontend.load_state_dict(own)
    image = torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        want = nn.Sequential(*layers)(image)
        torch.testing.assert_close(model.frontend(image), want)
    assert want.shape == (1, 512, 2, 3)


def test_batch_norm_takes_the_layout_of_vgg16_bn(tmp_path):
    donor = VGGFrontEnd(width=1 / 16, norm_cfg=dict(type='BN'))
    # torchvision's vgg16_bn has its second convolution here.
    assert isinstance(donor.features[3], nn.Conv2d)
    state = {k: torch.randn_like(v.float()) for k, v in donor.state_dict().items()}
    # Its file is older than the counters.
    state = {k: v for k, v in state.items() if 'num_batches' not in k}
    torch.save({'state_dict': state}, tmp_path / 'a.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    model = CSRNet(**SMALL, norm_cfg=dict(type='BN'), frontend_init_cfg=init)
    model.init_weights()
    loaded = model.frontend.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda s: s.pop('features.17.bias'), "lacks 'features.17.bias'"),
        (
            lambda s: s.update({'features.2.weight': torch.zeros(1)}),
            r"'features.2.weight' in .* has shape \(1,\), the front end of width=1.0",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, text, vgg16_state, tmp_path):
    state = dict(vgg16_state)
    change(state)
    torch.save(state, tmp_path / 'vgg16.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'vgg16.pth'))
    front_end = VGGFrontEnd(init_cfg=init)
    before = {k: v.clone() for k, v in front_end.state_dict().items()}
    with pytest.raises(RuntimeError, match=text):
        front_end.init_weights()
    # Nothing is loaded half.
    for name, value in front_end.state_dict().items():
        assert torch.equal(value, before[name])


def test_without_a_network_the_way_out_is_named(monkeypatch):
    import urllib.request

    def offline(*args, **kwargs):
        raise OSError('no network in this test')

    monkeypatch.setattr(urllib.request, 'urlopen', offline)
    # Also where an earlier download is kept.
    monkeypatch.setenv('TORCH_HOME', '/nonexistent')
    for checkpoint in ('torchvision://vgg16', 'no/such/file.pth'):
        init = dict(type='Pretrained', checkpoint=checkpoint)
        model = CSRNet(**SMALL, frontend_init_cfg=init)
        with pytest.raises(RuntimeError) as error:
            model.init_weights()
        message = str(error.value)
        assert message.startswith(f"init_cfg: the weights '{checkpoint}' for CSRNet")
        assert 'vgg16-397923af.pth' in message
        assert 'leave frontend_init_cfg out to train from scratch' in message


def batch(sizes, counts=None):
    """Images of these sizes with maps whose sums are the counts."""
    generator = torch.Generator().manual_seed(0)
    samples, images = [], []
    for i, (height, width) in enumerate(sizes):
        image = torch.randint(0, 256, (3, height, width), generator=generator)
        density = torch.rand(-(-height // 8), -(-width // 8), generator=generator)
        sample = BaseDataElement(metainfo=dict(img_id=str(i)), gt_density=density)
        images.append(image.to(torch.uint8))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def test_preprocessor_pads_images_and_maps():
    data = batch([(16, 20), (24, 9)])
    before = [sample.gt_density.clone() for sample in data['data_samples']]
    images = [image.float() for image in data['inputs']]
    done = CrowdDataPreprocessor()(data)
    assert done['inputs'].shape == (2, 3, 24, 24)
    first, second = done['data_samples']
    assert (first.map_shape, second.map_shape) == ((2, 3), (3, 2))
    for sample, density in zip((first, second), before, strict=True):
        rows, columns = sample.map_shape
        assert sample.gt_density.shape == (3, 3)
        assert torch.equal(sample.gt_density[:rows, :columns], density)
        assert (sample.gt_density > 0).sum() == density.numel()
    # BGR to RGB, ImageNet's mean and deviation, and the mean colour beyond.
    red = (images[0][2] - 123.675) / 58.395
    torch.testing.assert_close(done['inputs'][0, 0, :16, :20], red)
    assert done['inputs'][0, :, 16:].abs().max() == 0


def test_channels_last_changes_the_layout_alone():
    init = dict(type='Kaiming', layer='Conv2d')
    model = CSRNet(**SMALL, norm_cfg=dict(type='BN'), init_cfg=init).eval()
    model.init_weights()
    given = batch([(16, 24), (24, 16)])
    done = {
        last: CrowdDataPreprocessor(channels_last=last)(copy.deepcopy(given))
        for last in (False, True)
    }
    plain, other = done[False]['inputs'], done[True]['inputs']
    assert plain.is_contiguous()
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, other)
    # It holds through the layers.
    features = model.backend(model.frontend(other))
    assert features.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(other), model(plain))


def test_preprocessor_names_a_map_that_does_not_fit():
    data = batch([(16, 16)])
    data['data_samples'][0].gt_density = torch.zeros(4, 4)
    with pytest.raises(ValueError, match=r'gt_density: expected shape \(2, 2\) for an'):
        CrowdDataPreprocessor()(data)


def test_padding_is_neither_learned_from_nor_counted():
    model = MODELS.build(dict(type='CSRNet', **SMALL))
    model.init_weights()
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    small, large = (16, 24), (40, 32)
    both = model.data_preprocessor(batch([small, large]))
    target = torch.stack([s.gt_density for s in both['data_samples']])
    with torch.no_grad():
        loss = model(**both, mode='loss')['loss_density']
        maps = model(both['inputs'])
    inside = torch.zeros_like(maps)
    inside[0, :2, :3] = 1
    inside[1] = 1
    want = ((maps - target).square() * inside).sum() / 2
    torch.testing.assert_close(loss, want)
    counted = model(**both, mode='predict')
    assert counted[0].pred_density.shape == (2, 3)
    torch.testing.assert_close(counted[0].pred_count, maps[0, :2, :3].sum())
    torch.testing.assert_close(counted[1].pred_count, maps[1].sum())


def test_modes_and_bad_calls():
    model = CSRNet(**SMALL)
    image = torch.zeros(1, 3, 16, 24)
    assert model(image).shape == (1, 2, 3)
    (sample,) = model(image, mode='predict')
    assert sample.pred_density.shape == (2, 3)
    with pytest.raises(ValueError, match="mode: expected one of .*, got 'train'"):
        model(image, mode='train')
    with pytest.raises(ValueError, match=r'multiples of 8, .* got \(1, 3, 16, 20\)'):
        model(torch.zeros(1, 3, 16, 20))
    with pytest.raises(ValueError, match='gt_density: .* add LoadDensityMap to the'):
        model(image, [BaseDataElement()], mode='loss')
    with pytest.raises(ValueError, match='width: expected a value > 0, got 0'):
        CSRNet(width=0)


@pytest.mark.parametrize('norm_cfg', [None, dict(type='GN', num_groups=1)])
def test_every_layer_learns(norm_cfg):
    torch.manual_seed(0)
    model = CSRNet(
        width=1 / 16, norm_cfg=norm_cfg, init_cfg=dict(type='Kaiming', layer='Conv2d')
    )
    model.init_weights()
    data = model.data_preprocessor(batch([(32, 32)]))
    model(**data, mode='loss')['loss_density'].backward()
    without = [n for n, p in model.named_parameters() if not p.grad.abs().max() > 0]
    # A normalisation takes out the bias before it.
    assert norm_cfg is not None or not without
    assert all(name.endswith('.bias') for name in without)
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == (0 if norm_cfg is None else 16)
