import filterpy.kalman
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet import kalman


def random_spd(rng, *shape):
    A = rng.normal(size=(*shape, shape[-1]))
    return A @ np.swapaxes(A, -1, -2) + 0.1 * np.eye(shape[-1])


def random_system(rng, n, m, p):
    return {
        'F': rng.normal(size=(n, n)),
        'B': rng.normal(size=(n, p)),
        'H': rng.normal(size=(m, n)),
        'Q': random_spd(rng, n),
        'R': random_spd(rng, m),
        'x': rng.normal(size=n),
        'P': random_spd(rng, n),
    }


def tensors(**arrays):
    return {name: torch.from_numpy(np.asarray(a)) for name, a in arrays.items()}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 10_000))
def test_many_steps_match_filterpy(n, m, p, seed):
    rng = np.random.default_rng(seed)
    system = random_system(rng, n, m, p)
    oracle = filterpy.kalman.KalmanFilter(dim_x=n, dim_z=m, dim_u=p)
    for name, value in system.items():
        setattr(oracle, name, value)
    t = tensors(**system)
    x, P = t['x'], t['P']
    for _ in range(5):
        u, z = rng.normal(size=p), rng.normal(size=m)
        oracle.predict(u=u)
        oracle.update(z)
        prior = kalman.predict(x, P, t['F'], t['Q'], t['B'], torch.from_numpy(u))
        np.testing.assert_allclose(prior.mean, oracle.x_prior, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(
            prior.covariance, oracle.P_prior, rtol=1e-7, atol=1e-8
        )
        step = kalman.update(*prior, torch.from_numpy(z), t['H'], t['R'])
        x, P = step.mean, step.covariance
        for ours, theirs in (
            (x, oracle.x),
            (P, oracle.P),
            (step.gain, oracle.K),
            (step.innovation, oracle.y),
            (step.innovation_covariance, oracle.S),
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_batch_dimensions_broadcast():
    rng = np.random.default_rng(0)
    t = tensors(**random_system(rng, 3, 2, 1))
    x = torch.from_numpy(rng.normal(size=(4, 5, 3)))
    z = torch.from_numpy(rng.normal(size=(5, 2)))
    prior = kalman.predict(x, t['P'], t['F'], t['Q'])
    batch = kalman.update(*prior, z, t['H'], t['R'])
    assert batch.mean.shape == (4, 5, 3)
    one = kalman.predict(x[2, 3], t['P'], t['F'], t['Q'])
    one = kalman.update(*one, z[3], t['H'], t['R'])
    torch.testing.assert_close(batch.mean[2, 3], one.mean)
    torch.testing.assert_close(batch.covariance.expand(4, 5, 3, 3)[2, 3], one[1])


def test_update_is_differentiable():
    rng = np.random.default_rng(1)
    t = tensors(**random_system(rng, 3, 2, 1))
    z = torch.from_numpy(rng.normal(size=2))

    def step(x, root, z, noise):
        # P and R are made symmetric inside, so perturb them symmetrically.
        P = root @ root.T + torch.eye(3, dtype=root.dtype)
        R = noise @ noise.T + torch.eye(2, dtype=root.dtype)
        prior = kalman.predict(x, P, t['F'], t['Q'])
        return kalman.update(*prior, z, t['H'], R)

    inputs = (t['x'], t['P'], z, t['R'])
    inputs = tuple(value.clone().requires_grad_() for value in inputs)
    assert torch.autograd.gradcheck(step, inputs)


def test_covariance_stays_symmetric_and_positive_over_many_float32_steps():
    rng = np.random.default_rng(2)
    t = {k: v.float() for k, v in tensors(**random_system(rng, 4, 2, 1)).items()}
    F = 0.99 * torch.linalg.qr(t['F']).Q
    x, P = t['x'], 1e3 * t['P']
    for _ in range(500):
        prior = kalman.predict(x, P, F, 1e-8 * t['Q'])
        step = kalman.update(*prior, torch.randn(2), t['H'], 1e-2 * t['R'])
        x, P = step.mean, step.covariance
    assert torch.equal(P, P.mT)
    assert torch.linalg.eigvalsh(P.double()).min() > 0


def test_scalar_update_is_the_matrix_update():
    rng = np.random.default_rng(3)
    x, P, z, R = (torch.from_numpy(rng.uniform(0.1, 2, size=7)) for _ in range(4))
    mean, variance, gain = kalman.scalar_update(x, P, z, R)
    one = torch.ones(1, 1, dtype=x.dtype)
    step = kalman.update(
        x[:, None], P[:, None, None], z[:, None], one, R[:, None, None]
    )
    torch.testing.assert_close(mean, step.mean[:, 0])
    torch.testing.assert_close(variance, step.covariance[:, 0, 0])
    torch.testing.assert_close(gain, step.gain[:, 0, 0])


def test_scalar_update_at_its_limits():
    x, z = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([3.0, 3.0, 3.0])
    P, R = torch.tensor([0.0, 2.0, 2.0]), torch.tensor([0.0, torch.inf, 0.0])
    mean, variance, gain = kalman.scalar_update(x, P, z, R)
    assert mean.tolist() == [1.0, 1.0, 3.0]
    assert variance.tolist() == [0.0, 2.0, 0.0]
    assert gain.tolist() == [0.0, 0.0, 1.0]


def test_scalar_update_is_differentiable():
    inputs = tuple(
        torch.rand(3, dtype=torch.float64).add(0.1).requires_grad_() for _ in range(4)
    )
    assert torch.autograd.gradcheck(kalman.scalar_update, inputs)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.floats(-6, 6), st.floats(-6, 2))
def test_level_trend_step_is_predict_and_update(seed, log_noise, log_acceleration):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3, 2, 2))
    values = tensors(
        mean=rng.normal(size=(3, 2)),
        P=root @ root.transpose(0, 2, 1),
        z=rng.normal(size=3),
        R=10.0**log_noise,
        acceleration=10.0**log_acceleration,
    )
    ours = kalman.level_trend_step(**values)
    for i in range(3):
        oracle = filterpy.kalman.KalmanFilter(dim_x=2, dim_z=1)
        oracle.x, oracle.P = values['mean'][i].numpy(), values['P'][i].numpy()
        oracle.F, oracle.H = np.array([[1.0, 1], [0, 1]]), np.array([[1.0, 0]])
        oracle.Q = 10.0**log_acceleration * np.array([[1 / 3, 1 / 2], [1 / 2, 1]])
        oracle.R = np.array([[10.0**log_noise]])
        oracle.predict()
        oracle.update(values['z'][i].numpy())
        want = oracle.x, oracle.P, oracle.K[0, 0]
        for got, value in zip((x[i] for x in ours), want, strict=True):
            np.testing.assert_allclose(got, value, rtol=1e-7, atol=1e-9)


def test_level_trend_step_is_differentiable():
    generator = torch.Generator().manual_seed(0)
    mean, z = (torch.randn(n, generator=generator).double() for n in (2, 1))
    P = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    R, acceleration = torch.tensor([0.5, 0.2], dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (mean, P, z[0], R, acceleration)]
    assert torch.autograd.gradcheck(kalman.level_trend_step, inputs)


def test_level_trend_covariance_stays_positive_over_many_float32_steps():
    generator = torch.Generator().manual_seed(0)
    mean, P = torch.zeros(2), torch.diag(torch.tensor([1.0, 1e-2]))
    for z in torch.randn(2000, generator=generator):
        R, acceleration = torch.tensor(1e-6), torch.tensor(1e-6)
        mean, P, _ = kalman.level_trend_step(mean, P, z, R, acceleration)
        assert torch.linalg.eigvalsh(P.double())[0] > 0


def test_noise_estimate_finds_the_true_noise():
    rng = np.random.default_rng(4)
    R_true, Q = 0.5, 0.01
    level, x, P, R = 0.0, torch.zeros(1), torch.ones(1, 1), torch.eye(1) * 5.0
    eye, estimates = torch.eye(1), []
    for _ in range(4000):
        level += rng.normal() * np.sqrt(Q)
        z = torch.tensor([level + rng.normal() * np.sqrt(R_true)])
        prior = kalman.predict(x, P, eye, Q * eye)
        step = kalman.update(*prior, z, eye, R)
        x, P = step.mean, step.covariance
        R = kalman.adapt_measurement_noise(R, z - x, P, forgetting=0.995)
        estimates.append(R.item())
    assert np.mean(estimates[1000:]) == pytest.approx(R_true, rel=0.1)


def test_noise_estimate_matches_its_formula_and_stays_positive():
    R, residual = torch.eye(2) * 2, torch.tensor([1.0, -3.0])
    HPH = torch.tensor([[0.5, 0.1], [0.1, 0.4]])
    out = kalman.adapt_measurement_noise(R, residual, HPH, 0.75)
    want = 0.75 * R + 0.25 * (torch.outer(residual, residual) + HPH)
    torch.testing.assert_close(out, want)
    assert torch.linalg.eigvalsh(out).min() > 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_run_in_float32(dtype):
    x, P = torch.ones(2, dtype=dtype), torch.eye(2, dtype=dtype)
    H = torch.tensor([[300.0, 1.0]])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        prior = kalman.predict(x, P, torch.eye(2), torch.eye(2))
        step = kalman.update(*prior, torch.ones(1), H, torch.eye(1))
    # 2 * 300^2 + 3 is beyond float16 and needs more digits than bfloat16 has.
    assert step.innovation_covariance.item() == 2 * 300**2 + 3
    assert all(value.dtype == torch.float32 for value in step)


def test_integers_are_promoted():
    prior = kalman.predict(
        torch.tensor([1, 2]), torch.eye(2).long(), torch.eye(2), torch.eye(2)
    )
    assert prior.mean.tolist() == [1.0, 2.0]


def test_empty_batch():
    x, P = torch.zeros(0, 2), torch.zeros(0, 2, 2)
    prior = kalman.predict(x, P, torch.eye(2), torch.eye(2))
    step = kalman.update(*prior, torch.zeros(0, 1), torch.ones(1, 2), torch.eye(1))
    assert step.mean.shape == (0, 2)
    assert step.gain.shape == (0, 2, 1)


def test_indefinite_innovation_covariance_gives_nan_for_that_item_alone():
    P = torch.stack((torch.eye(1), torch.eye(1)))
    R = torch.tensor([[[1.0]], [[-3.0]]])
    step = kalman.update(torch.zeros(2, 1), P, torch.ones(2, 1), torch.eye(1), R)
    assert step.mean[0].item() == 0.5
    assert step.mean[1].isnan().all()


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (
            lambda e: kalman.predict(torch.zeros(2), e(3), e(2), e(2)),
            r'P: expected shape \(\.\.\., 2, 2\), got \(3, 3\)',
        ),
        (
            lambda e: kalman.predict(torch.zeros(2), e(2), e(3), e(2)),
            r'F: expected shape \(\.\.\., 2, 2\)',
        ),
        (
            lambda e: kalman.predict(torch.tensor(1.0), e(1), e(1), e(1)),
            r'x: expected shape \(\.\.\., n\), got \(\)',
        ),
        (
            lambda e: kalman.predict(torch.zeros(2), e(2), e(2), e(2), B=e(2)),
            'B and u go together: B is given but u is None',
        ),
        (
            lambda e: kalman.update(torch.zeros(2), e(2), torch.zeros(1), e(2), e(1)),
            r'H: expected shape \(\.\.\., 1, 2\), got \(2, 2\)',
        ),
        (
            lambda e: kalman.update(
                torch.zeros(2), e(2), torch.zeros(1), torch.zeros(1, 2), e(2)
            ),
            r'R: expected shape \(\.\.\., 1, 1\)',
        ),
        (
            lambda e: kalman.predict(torch.zeros(2).cfloat(), e(2), e(2), e(2)),
            'expected real numbers, got a torch.complex64 tensor',
        ),
        (
            lambda e: kalman.adapt_measurement_noise(e(1), torch.zeros(1), e(1), 1.5),
            r'forgetting: expected a value in \[0, 1\], got 1.5',
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.eye)
