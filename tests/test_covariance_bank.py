import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daal_mmdet.covariance_bank import COVARIANCES, CovarianceBank
from tests.oracles import ResidualFilters

# Two levels: 2 templates on 2 x 2 cells, 1 template on 1 x 3 cells.
GROUP_OF = [0, 1] * 4 + [2] * 3
LEVEL_OF_GROUP = [0, 0, 1]


def make_bank(covariance='diag', **options) -> CovarianceBank:
    bank = CovarianceBank(covariance, **options)
    assert bank.add_level(2, 2, 2) == 0
    assert bank.add_level(1, 1, 3) == 1
    assert len(bank) == len(GROUP_OF)
    return bank


def step(bank, measurements):
    slots = torch.tensor([slot for slot, _ in measurements], dtype=torch.int64)
    residuals = np.array([z for _, z in measurements], np.float32).reshape(
        -1, bank.size
    )
    bank.step(slots, torch.from_numpy(residuals))


residual = st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=4)
iteration = st.lists(st.tuples(st.integers(0, 10), residual), max_size=6)


@pytest.mark.parametrize('covariance', COVARIANCES)
@settings(max_examples=40, deadline=None)
@given(
    iterations=st.lists(iteration, max_size=8),
    q=st.sampled_from([0.0, 1e-3, 0.3]),
    r=st.sampled_from([None, 0.2]),
    forgetting=st.sampled_from([0.5, 0.98, 1.0]),
    prior=st.sampled_from([1.0, 20.0, float('inf')]),
)
def test_filters_are_those_of_the_oracle(
    covariance, iterations, q, r, forgetting, prior
):
    bank = make_bank(
        covariance,
        process_noise=q,
        measurement_noise=r,
        initial_variance=0.5,
        forgetting=forgetting,
        noise_prior=prior,
    )
    full = covariance == 'full'
    oracle = ResidualFilters(
        GROUP_OF, LEVEL_OF_GROUP, full, q, r, 0.5, forgetting, prior
    )
    for measurements in iterations:
        step(bank, measurements)
        oracle.step(measurements)
    slots = torch.arange(len(GROUP_OF))
    x, P = bank.estimate(slots)
    R = bank.noise(slots)
    log_det = bank.log_det(slots)
    for slot in range(len(GROUP_OF)):
        mean, covariance_of_slot = oracle.state(slot)
        as_bank = (lambda m: m) if full else np.diag
        close = dict(rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(x[slot], mean, **close)
        np.testing.assert_allclose(P[slot], as_bank(covariance_of_slot), **close)
        np.testing.assert_allclose(R[slot], as_bank(oracle.R(slot)), **close)
        expected = np.linalg.slogdet(covariance_of_slot)[1]
        np.testing.assert_allclose(log_det[slot], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('covariance', COVARIANCES)
def test_closed_form_without_process_noise(covariance):
    bank = make_bank(covariance, process_noise=0, measurement_noise=0.3)
    rng = np.random.default_rng(0)
    # 1 + 3 measurements in two iterations are four.
    for number in (1, 3):
        step(bank, [(2, rng.normal(size=4)) for _ in range(number)])
    P = bank.estimate(torch.tensor([2]))[1][0]
    variance = P if covariance == 'diag' else P.diagonal()
    torch.testing.assert_close(variance, torch.full((4,), 1 / (1 / 1.0 + 4 / 0.3)))
    assert bank.visits.tolist() == [0, 0, 4] + [0] * 8


@pytest.mark.parametrize('covariance', COVARIANCES)
def test_steady_state_is_the_root_of_the_riccati_equation(covariance):
    q, r = 0.05, 0.3
    bank = make_bank(covariance, process_noise=q, measurement_noise=r)
    for _ in range(200):
        step(bank, [(0, [0.1, -0.2, 0.3, 0.0])])
    # P = (P + Q) R / (P + Q + R)
    root = (-q + np.sqrt(q * q + 4 * q * r)) / 2
    log_det = bank.log_det(torch.tensor([0]))
    np.testing.assert_allclose(log_det, 4 * np.log(root), rtol=1e-5)


def test_noise_is_found_and_noisier_slots_have_the_larger_covariance():
    rng = np.random.default_rng(0)
    bank = make_bank(forgetting=0.995, noise_prior=2.0)
    for _ in range(400):
        quiet = [(slot, rng.normal(size=4) * 0.1) for slot in (0, 2)]
        noisy = [(slot, rng.normal(size=4) * 0.4) for slot in (1, 4)]
        step(bank, quiet + noisy)
    R = bank.noise(torch.tensor([0, 1, 2, 4])).mean(dim=1)
    # 0, 2 and 4 share a template, and are drawn a little towards each other.
    np.testing.assert_allclose(R.sqrt(), [0.1, 0.4, 0.1, 0.4], rtol=0.1)
    log_det = bank.log_det(torch.tensor([0, 1, 2, 4]))
    assert log_det[0] < log_det[1]
    assert log_det[2] < log_det[3]


@pytest.mark.parametrize('covariance', COVARIANCES)
def test_full_covariance_sees_correlation(covariance):
    rng = np.random.default_rng(0)
    bank = make_bank(covariance, noise_prior=float('inf'))
    for _ in range(300):
        common = rng.normal() * 0.3
        step(bank, [(0, common + rng.normal(size=4) * 0.03)])
    R = bank.noise(torch.tensor([0]))[0]
    if covariance == 'full':
        correlation = R[0, 1] / (R[0, 0] * R[1, 1]).sqrt()
        assert correlation > 0.9
        assert torch.linalg.eigvalsh(R).min() > 0
    else:
        np.testing.assert_allclose(R.sqrt(), 0.3, rtol=0.2)


def test_order_of_the_rows_and_swapped_histories():
    rng = np.random.default_rng(1)
    steps = [
        [(int(s), rng.normal(size=4)) for s in rng.integers(0, 4, 5)] for _ in range(9)
    ]
    swap = {0: 2, 2: 0}
    plain, reordered, swapped = make_bank(), make_bank(), make_bank()
    for measurements in steps:
        step(plain, measurements)
        step(reordered, measurements[::-1])
        step(swapped, [(swap.get(s, s), z) for s, z in measurements])
    slots = torch.tensor([0, 1, 2, 3])
    close = dict(rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain.log_det(slots), reordered.log_det(slots), **close)
    other = swapped.log_det(torch.tensor([2, 1, 0, 3]))
    torch.testing.assert_close(plain.log_det(slots), other, **close)
    assert plain.log_det(slots)[0] != plain.log_det(slots)[2]


def test_unmeasured_slots_take_the_mean_of_their_level_and_template():
    bank = make_bank(measurement_noise=0.5, process_noise=0, forgetting=1.0)
    slots = torch.arange(11)
    assert torch.equal(bank.log_det(slots), torch.zeros(11))
    assert bank.mean_log_det().isnan().all()
    step(bank, [(0, [1.0] * 4), (2, [0.0] * 4), (2, [0.0] * 4)])
    x, P = bank.estimate(slots)
    np.testing.assert_allclose(P[0], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(P[2], 1 / 5, rtol=1e-6)
    # The prior is one of three slots of the level.
    level_x, level_P = (0 + 2 / 3 + 0) / 3, (1 + 1 / 3 + 1 / 5) / 3
    for other in (4, 6):
        np.testing.assert_allclose(P[other], (level_P + 1 / 3 + 1 / 5) / 3, rtol=1e-6)
        np.testing.assert_allclose(x[other], (level_x + 2 / 3 + 0) / 3, rtol=1e-6)
    for other in (1, 3, 5, 7):
        np.testing.assert_allclose(P[other], level_P, rtol=1e-6)
        np.testing.assert_allclose(x[other], level_x, rtol=1e-6)
    assert (P[[8, 9, 10]] == 1).all()
    expected = 4 * (np.log(1 / 3) + np.log(1 / 5)) / 2
    level, empty = bank.mean_log_det()
    np.testing.assert_allclose(level, expected, rtol=1e-6)
    assert empty.isnan()


def test_a_rare_template_becomes_like_the_others_of_its_level():
    rng = np.random.default_rng(0)
    bank = make_bank()
    step(bank, [(1, rng.normal(size=4))] * 3)
    for _ in range(600):
        step(bank, [(0, rng.normal(size=4) * 0.1)])
    # Of one level: as a slot that was measured long ago, or never.
    log_det = bank.log_det(torch.tensor([1, 3, 4]))
    np.testing.assert_allclose(log_det, log_det[2].item(), rtol=0.02)
    np.testing.assert_allclose(bank.noise(torch.tensor([1])), 0.01, rtol=0.5)
    # Of a level that was never measured: the prior.
    np.testing.assert_allclose(bank.log_det(torch.tensor([8])), 0, atol=1e-6)


@pytest.mark.parametrize('covariance', COVARIANCES)
def test_a_level_keeps_what_it_knows_however_long_it_waits(covariance):
    bank = make_bank(covariance, forgetting=0.9)
    generator = torch.Generator().manual_seed(0)
    first = torch.arange(4)
    for _ in range(50):
        bank.step(first, 0.03 * torch.randn(4, 4, generator=generator))
    last = torch.tensor([len(bank) - 1])
    assert bank.level_of(last) != bank.level_of(first[:1])
    # Until nothing is left that is a slot's own.
    for _ in range(200):
        bank.step(last, 0.5 * torch.randn(1, 4, generator=generator))
    known = bank.log_det(first), bank.noise(first), bank.estimate(first)[0]
    for _ in range(1500):
        bank.step(last, 0.5 * torch.randn(1, 4, generator=generator))
    now = bank.log_det(first), bank.noise(first), bank.estimate(first)[0]
    for before, after in zip(known, now, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)


def test_what_never_forgets_does_not_outgrow_float32():
    bank = make_bank(measurement_noise=1e-6, process_noise=1.0, forgetting=1.0)
    names = [
        name for name in vars(bank) if name.startswith('_group_') and name != '_group'
    ]
    # 2^24 steps of residual 0, of which 2^22 are kept from the first step on.
    step(bank, [(0, [0.0] * 4)])
    for name in names:
        getattr(bank, name).mul_(2.0**24)
    for _ in range(1000):
        step(bank, [(0, [1.0] * 4)])
    new = 1 - (1 - 2.0**-22) ** 1000
    np.testing.assert_allclose(bank.estimate(torch.tensor([2]))[0], new, rtol=1e-2)
    assert bank._group_count[0].item() == pytest.approx(2**22, rel=1e-6)


@pytest.mark.parametrize('covariance', COVARIANCES)
@pytest.mark.parametrize('prior', [1e4, 1e6, 1e8])
def test_a_diffuse_prior_does_not_swallow_what_a_slot_knows(covariance, prior):
    options = dict(initial_variance=prior, measurement_noise=0.01, process_noise=1e-6)
    bank = make_bank(covariance, **options)
    slots = torch.tensor([0, 5])
    bank.step(slots, torch.tensor([[0.1, 0.2, -0.1, 0.0], [0.3, 0.1, 0.2, 0.1]]))
    # One measurement leaves R of a prior that says nothing.
    want = torch.full((2,), 4 * np.log(0.01), dtype=torch.float32)
    torch.testing.assert_close(bank.log_det(slots), want, rtol=1e-5, atol=0)


def test_cells_of_the_same_and_of_another_size():
    bank = make_bank()
    y, x = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    template = torch.tensor([1, 0, 1, 0])
    assert bank.slots(0, template, y, x, (2, 2)).tolist() == [1, 2, 5, 6]
    # A map of 4 x 6 is laid over 2 x 2, one of 1 x 1 falls into the first cell.
    y, x = torch.tensor([0, 1, 2, 3]), torch.tensor([2, 3, 0, 5])
    assert bank.slots(0, template * 0, y, x, (4, 6)).tolist() == [0, 2, 4, 6]
    zero = torch.tensor([0])
    assert bank.slots(1, zero, zero, zero, (1, 1)).tolist() == [8]
    assert bank.slots(1, zero, zero, zero + 5, (1, 6)).tolist() == [10]


def test_a_level_may_come_later():
    bank = make_bank()
    step(bank, [(0, [0.1] * 4)])
    before = bank.log_det(torch.arange(11))
    bank.add_level(3, 1, 1)
    assert len(bank) == 14
    torch.testing.assert_close(bank.log_det(torch.arange(11)), before)
    step(bank, [(13, [0.2] * 4)])
    assert bank.visits.nonzero().flatten().tolist() == [0, 13]


@pytest.mark.parametrize('covariance', COVARIANCES)
def test_nothing_and_nonsense_change_nothing(covariance):
    bank, other = make_bank(covariance, forgetting=1.0), make_bank(covariance)
    for each in (bank, other):
        step(each, [(0, [0.1] * 4)])
    before = bank.state_dict()
    before = {k: v.clone() if torch.is_tensor(v) else v for k, v in before.items()}
    step(bank, [])
    step(bank, [(1, [float('nan'), 0, 0, 0]), (2, [0, float('inf'), 0, 0])])
    after = bank.state_dict()
    for key, value in before.items():
        if torch.is_tensor(value):
            assert torch.equal(value, after[key]), key
    # What was measured is forgotten alike.
    step(other, [])
    nothing = other.log_det(torch.arange(11))
    step(other, [])
    assert not torch.equal(other.log_det(torch.arange(11)), nothing)
    bank.step(torch.tensor([1]), torch.full((1, 4), 1e4, dtype=torch.float16))
    assert bank.log_det(torch.arange(11)).isfinite().all()


@pytest.mark.parametrize('covariance', COVARIANCES)
@pytest.mark.parametrize('place', [0, 1, 3])
@pytest.mark.parametrize('nonsense', [float('nan'), float('-inf'), 1e20])
def test_nonsense_is_left_out_of_what_its_slot_measures(covariance, place, nonsense):
    rows = [(4, [0.3, 0.1, 0.2, 0.1]), (2, [0.5] * 4), (4, [0.1, 0.2, 0.4, 0.3])]
    bank, other = make_bank(covariance), make_bank(covariance)
    for _ in range(2):
        step(bank, rows)
        step(other, [*rows[:place], (4, [0.1, nonsense, 0, 0]), *rows[place:]])
    assert bank.visits[4] == 4
    got = other.state_dict()
    for name, want in bank.state_dict().items():
        if torch.is_tensor(want):
            torch.testing.assert_close(got[name], want, rtol=1e-6, atol=0)


@pytest.mark.parametrize('covariance', COVARIANCES)
def test_exact_residuals_keep_log_det_finite(covariance):
    bank = make_bank(covariance, process_noise=0, forgetting=0.5)
    for _ in range(200):
        step(bank, [(0, [0.0] * 4)] * 3)
    assert bank.log_det(torch.tensor([0])).isfinite().all()


@pytest.mark.parametrize('covariance', COVARIANCES)
def test_a_loaded_bank_goes_on_bit_by_bit(covariance, tmp_path):
    rng = np.random.default_rng(0)
    steps = [
        [(int(s), rng.normal(size=4)) for s in rng.integers(0, 11, 4)] for _ in range(8)
    ]
    bank, resumed = make_bank(covariance), CovarianceBank(covariance)
    for measurements in steps[:4]:
        step(bank, measurements)
    # Nothing in it needs pickled code.
    torch.save(bank.state_dict(), tmp_path / 'bank.pth')
    resumed.load_state_dict(torch.load(tmp_path / 'bank.pth', weights_only=True))
    for measurements in steps[4:]:
        step(bank, measurements)
        step(resumed, measurements)
    for key, value in bank.state_dict().items():
        other = resumed.state_dict()[key]
        assert torch.equal(value, other) if torch.is_tensor(value) else value == other
    # The saved state is not shared.
    assert resumed.mean.data_ptr() != bank.mean.data_ptr()


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"covariance: .*\('diag', 'full'\), got 'x'"):
        CovarianceBank('x')
    with pytest.raises(ValueError, match=r'values >= 1, got \(0, 1, 1\)'):
        CovarianceBank().add_level(0)
    with pytest.raises(ValueError, match="saved filters are 'full', these are 'diag'"):
        make_bank().load_state_dict(make_bank('full').state_dict())
    state = CovarianceBank().state_dict()
    del state['_prior_weight']
    with pytest.raises(
        ValueError, match=r"saved filters lack \['_prior_weight'\]: an "
    ):
        CovarianceBank().load_state_dict(state)


def test_full_covariance_of_residuals_along_one_line_stays_definite():
    """Their second moment is singular, up to the rounding of float32."""
    bank = CovarianceBank('full', forgetting=0.9)
    bank.add_level(1)
    slots = torch.zeros(2, dtype=torch.int64)
    line = 100 * torch.tensor([1.0, 0.7, -0.3, 0.2])
    for _ in range(100):
        bank.step(slots, torch.stack([line, -line]))
        assert not torch.linalg.cholesky_ex(bank.noise(slots)).info.any()
        assert bank.log_det(slots).isfinite().all()
