"""The Triton kernel, run on the CPU by Triton's interpreter in a child process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from daal_mmdet.losses import focal_triton, fused_focal
from tests import oracles

pytest.importorskip('triton', reason="needs pip install '.[triton]' (Linux)")

# Answers each case by the public function, which takes its gradient from the kernel.
ANSWER = """
import sys, torch
from daal_mmdet.losses import focal_triton, fused_focal
focal_triton.usable = lambda logits: True
answers = []
for case in torch.load(sys.argv[1]):
    case['logits'].requires_grad_()
    total, _ = fused_focal.sigmoid_focal_sum(**case)
    (3 * total).backward()
    answers.append((total.detach(), case['logits'].grad))
torch.save(answers, sys.argv[2])
"""
# Compiles for a GPU of another machine.
COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from daal_mmdet.losses.focal_triton import _sigmoid_focal_kernel as kernel
for dtype, gamma in (('fp32', 2.0), ('fp16', 0.0), ('bf16', 1.5), ('fp32', None)):
    constants = dict(GAMMA=gamma or 0.0, GAMMAS=gamma is None, WEIGHTED=True,
                     BALANCED=True, HEIGHT=16, WIDTH=128)
    types = [f'*{dtype}', '*i64', *['*fp32'] * 5, *['i32'] * 4, 'fp32', 'fp32']
    types += ['constexpr'] * len(constants)
    signature = dict(zip(kernel.arg_names, types, strict=True))
    source = ASTSource(kernel, signature, constants)
    compiled = compile(source, target=GPUTarget('cuda', 80, 32))
    print('cubin', len(compiled.asm['cubin']))
"""
# (rows, columns): less than a tile, tiles with a rest, several tiles of columns.
SHAPES = [(0, 3), (1, 1), (5, 3), (70, 80), (33, 300)]
OPTIONS = [
    dict(gamma=2.0, alpha=0.25),
    dict(gamma=0.0, alpha=None),
    dict(gamma=0.5, alpha=1.0),
    dict(gamma=3.7, alpha=0.0),
    # An exponent for each class.
    dict(gamma=None, alpha=0.25),
]


def in_child(code: str, *args: object, interpret: bool) -> str:
    env = {**os.environ, 'TRITON_INTERPRET': '1' if interpret else '0'}
    root = str(Path(focal_triton.__file__).parents[2])
    env['PYTHONPATH'] = os.pathsep.join([root, env.get('PYTHONPATH', '')])
    command = [sys.executable, '-c', code, *map(str, args)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def filled(options: dict, num_classes: int) -> dict:
    if options['gamma'] is not None:
        return options
    return {**options, 'gamma': 0.5 * (torch.arange(num_classes) % 4)}


def make_cases() -> list[dict]:
    rng = np.random.default_rng(0)
    cases = []
    for N, C in SHAPES:
        for options in OPTIONS:
            logits = torch.from_numpy(4 * rng.normal(size=(N, C))).float()
            labels = torch.from_numpy(rng.integers(0, C + 1, size=N))
            row = torch.from_numpy(rng.uniform(size=N))
            pos = torch.from_numpy(rng.uniform(1, 5, size=C)).float()
            case = dict(logits=logits, labels=labels, **filled(options, C))
            # Logits of its own, for its gradient.
            weighted = dict(case, logits=logits.clone(), weight=row, pos_weight=pos)
            cases += [case, weighted]
    strided = dict(cases[-1], logits=cases[-1]['logits'].T.contiguous().T)
    half = [dict(cases[-1], logits=cases[-1]['logits'].to(t)) for t in HALF]
    extreme = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [-torch.inf, 0.0]])
    labels = torch.tensor([0, 0, 2])
    return [*cases, strided, *half] + [
        dict(logits=extreme.clone(), labels=labels, **filled(o, 2)) for o in OPTIONS
    ]


HALF = (torch.float16, torch.bfloat16)


@pytest.fixture(scope='module')
def answered(tmp_path_factory) -> list[tuple[dict, torch.Tensor, torch.Tensor]]:
    """Cases with the kernel's value and gradient of three times the value."""
    folder = tmp_path_factory.mktemp('triton')
    cases = make_cases()
    torch.save(cases, folder / 'cases.pt')
    in_child(ANSWER, folder / 'cases.pt', folder / 'answers.pt', interpret=True)
    answers = torch.load(folder / 'answers.pt')
    return [(c, *a) for c, a in zip(cases, answers, strict=True)]


def test_kernel_matches_the_oracle(answered):
    for case, total, grad in answered:
        logits, gamma, alpha = case['logits'], case['gamma'], case['alpha']
        if not logits.isfinite().all():
            continue
        pos = case.get('pos_weight')
        loss, slope = oracles.sigmoid_focal(
            logits.double(), case['labels'], gamma, alpha, pos
        )
        row = case.get('weight', torch.ones(len(logits))).double().numpy()
        assert total.dtype == torch.float32
        want = (loss.sum(axis=1) * row).sum()
        assert total.item() == pytest.approx(want, rel=2e-6, abs=1e-7)
        exact = 3 * slope * row[:, None]
        tolerance = 1e-2 if grad.dtype in HALF else 1e-5
        np.testing.assert_allclose(
            grad.double(), exact, rtol=tolerance, atol=1e-6, err_msg=str(case)
        )


def test_kernel_matches_the_operators(answered):
    for case, total, grad in answered:
        logits = case['logits'].clone().requires_grad_()
        want, _ = fused_focal.sigmoid_focal_sum(**{**case, 'logits': logits})
        (3 * want).backward()
        assert grad.dtype == logits.dtype
        torch.testing.assert_close(total, want.detach(), rtol=2e-6, atol=1e-6)
        tolerance = 1e-2 if grad.dtype in HALF else 1e-5
        torch.testing.assert_close(grad, logits.grad, rtol=tolerance, atol=2e-6)


def test_kernel_compiles_for_a_gpu():
    lines = in_child(COMPILE, interpret=False).splitlines()
    sizes = [int(line.split()[1]) for line in lines if line.startswith('cubin ')]
    assert len(sizes) == 4
    assert min(sizes) > 0


def test_operators_where_the_kernel_does_not_fit():
    assert not focal_triton.usable(torch.zeros(1, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('options', OPTIONS)
def test_kernel_on_a_gpu(options, monkeypatch):
    logits = torch.randn(1000, 300, device='cuda', requires_grad=True)
    labels = torch.randint(301, (1000,), device='cuda')
    with torch.device('cuda'):
        options = filled(options, 300)
    assert focal_triton.usable(logits)
    got, _ = fused_focal.sigmoid_focal_sum(logits, labels, **options)
    (slope,) = torch.autograd.grad(got, logits)
    monkeypatch.setattr(focal_triton, 'usable', lambda logits: False)
    want, _ = fused_focal.sigmoid_focal_sum(logits, labels, **options)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        slope, torch.autograd.grad(want, logits)[0], rtol=1e-4, atol=1e-6
    )
