import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.losses.density_nuclear_norm import density_nuclear_norm_loss
from tests import oracles


def maps(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=dtype)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from(['ratio', 'raw']),
    st.sampled_from([1e-3, 1.0, 50.0]),
    st.integers(0, 99),
)
def test_value_matches_the_oracle(rows, columns, kind, scale, seed):
    density = scale * maps(3, 7, 7, seed=seed)
    shapes = [(rows, columns), (columns, rows), (7, 7)]
    mask = torch.zeros(3, 7, 7)
    for own, (r, c) in zip(mask, shapes, strict=True):
        own[:r, :c] = 1
    found = density_nuclear_norm_loss(density, mask, kind, 'svd')
    want = oracles.density_nuclear_norm_loss(density.numpy(), shapes, kind, 0.1)
    assert found.item() == pytest.approx(want, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize('kind', ['ratio', 'raw'])
@pytest.mark.parametrize('method', ['svd', 'gram'])
def test_gradient(kind, method):
    density = maps(2, 4, 6).requires_grad_()
    mask = torch.zeros(2, 4, 6, dtype=torch.float64)
    mask[0] = 1
    mask[1, :3, :4] = 1
    assert torch.autograd.gradcheck(
        lambda d: density_nuclear_norm_loss(d, mask, kind, method), density
    )
    density_nuclear_norm_loss(density, mask, kind, method).backward()
    assert (density.grad[mask == 0] == 0).all()


def test_the_ratio_does_not_depend_on_scale_and_can_not_inflate():
    density = maps(3, 5, 6)
    value = density_nuclear_norm_loss(density)
    torch.testing.assert_close(density_nuclear_norm_loss(40 * density), value)
    for scale in (1e-3, 1.0):
        leaf = (scale * density).requires_grad_()
        density_nuclear_norm_loss(leaf).backward()
        radial = (leaf.grad * leaf).sum(dim=(1, 2))
        size = leaf.grad.norm(dim=(1, 2)) * leaf.detach().norm(dim=(1, 2))
        assert (radial.abs() < 1e-10 * size).all()
    # The raw norm falls for ever as the map grows.
    raw = [density_nuclear_norm_loss(s * density, kind='raw') for s in (1, 10)]
    torch.testing.assert_close(raw[1], 10 * raw[0])
    assert raw[0] < 0


def test_limits_of_the_ratio():
    # All singular values agree; one alone.
    assert density_nuclear_norm_loss(torch.eye(4)[None]).item() == pytest.approx(
        0, abs=1e-6
    )
    flat = density_nuclear_norm_loss(torch.ones(1, 4, 9))
    assert flat.item() == pytest.approx(1 - 1 / 2, abs=1e-6)


@pytest.mark.parametrize('size', [0.0, 1e-30, 1e-6, 1e-3, 1.0])
def test_gradient_of_almost_empty_maps_is_bounded(size):
    density = (size * maps(1, 8, 8, dtype=torch.float32)).requires_grad_()
    loss = density_nuclear_norm_loss(density)
    loss.backward()
    assert loss.isfinite()
    assert density.grad.isfinite().all()
    assert density.grad.norm() <= 1 / 0.1
    if size == 0:
        assert loss == 0
        assert not density.grad.any()


def test_no_maps_half_precision_and_empty_masks():
    empty = torch.zeros(0, 4, 4, requires_grad=True)
    loss = density_nuclear_norm_loss(empty)
    loss.backward()
    assert loss == 0
    half = maps(2, 5, 5).to(torch.bfloat16)
    loss = density_nuclear_norm_loss(half)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, density_nuclear_norm_loss(half.float()))
    density = maps(2, 5, 5).requires_grad_()
    nothing = density_nuclear_norm_loss(density, torch.zeros(2, 5, 5))
    nothing.backward()
    assert nothing == 0
    assert not density.grad.any()


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(kind='sum'), "kind: expected one of .*, got 'sum'"),
        (dict(method='qr'), "method: expected one of .*, got 'qr'"),
        (dict(min_norm=0), 'min_norm: expected a value > 0, got 0'),
        (dict(density=torch.zeros(4, 4)), r'density: expected \(B, H, W\), got'),
        (dict(mask=torch.ones(2, 4, 5)), r'mask: expected shape \(2, 4, 4\), got'),
    ],
)
def test_bad_arguments_are_named(change, text):
    with pytest.raises(ValueError, match=text):
        density_nuclear_norm_loss(**{'density': torch.zeros(2, 4, 4), **change})


def test_numpy_and_torch_agree_on_a_real_looking_map():
    y, x = np.mgrid[:12, :16]
    D = np.exp(-((x - 4) ** 2 + (y - 5) ** 2) / 8) + np.exp(-((x - 11) ** 2) / 6)
    found = density_nuclear_norm_loss(torch.tensor(D)[None], method='gram')
    want = oracles.density_nuclear_norm_loss([D], [(12, 16)], 'ratio', 0.1)
    assert found.item() == pytest.approx(want, rel=1e-6)
