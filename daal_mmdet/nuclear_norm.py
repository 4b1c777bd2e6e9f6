"""Nuclear norm of a matrix, with its gradient from the same computation.

The gradient of ||A||_* = sum_i s_i is the polar factor U V^T of A = U S V^T. Every
method below finds value and polar factor together, so that nothing is differentiated
through a decomposition (whose own gradient divides by differences of singular values
and is not finite where two of them agree).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ['METHODS', 'nuclear_norm']

METHODS = ('auto', 'svd', 'gram', 'newton_schulz', 'fast')

# Quintic steps X <- a X + b (X X^T) X + c (X X^T)^2 X. The first kind (K. Jordan et
# al., "Muon", 2024) has slope 3.44 at zero and lifts small singular values fast, but
# only to somewhere in [0.7, 1.2]; the second has its fixed point, of third order, at 1.
_LIFT = (3.4445, -4.7750, 2.0315)
_CONVERGE = (15 / 8, -10 / 8, 3 / 8)
_LIFT_STEPS, _CONVERGE_STEPS = 6, 4
# Gram matrices in float32: the estimated relative error of a slope that is let pass. On
# softmax matrices of 30 x 80 to 1000 x 600 the error was at most 1.1 times the estimate
# where it was above 5e-6.
_ERROR = 8e-5
# The largest eigenvalue is taken out where this many power iterations find it.
_POWER_STEPS, _CONVERGED = 5, 3e-6
# Below this size eigh in float64 is so cheap that taking it out does not pay.
_LARGE = 256


def nuclear_norm(matrix: Tensor, method: str = 'auto') -> Tensor:
    """Sum of the singular values of each matrix in a batch.

    ``method`` says how:

    * ``'svd'``: full singular value decomposition; the reference.
    * ``'gram'``: eigenvalues of the smaller Gram matrix. The product squares the
      condition number, so float32 is enough only for well-conditioned matrices: on a
      CPU it is tried first, and kept where the eigenvalues bound the relative error of
      the gradient by 1e-4. Everything else is computed in float64.
    * ``'newton_schulz'``: ten matrix-product steps towards the polar factor. No
      decomposition and no host synchronisation. It underestimates directions whose
      singular value is below about 1e-4 of the Frobenius norm.
    * ``'fast'``: the sum of the min(B, C) largest column norms (Cui et al., "Fast
      batch nuclear-norm maximization and minimization for robust domain adaptation",
      2021), where rows of zeros do not count towards B. An upper bound for B >= C,
      *not* the nuclear norm.
    * ``'auto'``: ``'gram'`` on a CPU, ``'newton_schulz'`` elsewhere.

    Deviations from a textbook SVD gradient: where the matrix is rank deficient the
    gradient is the minimum-norm subgradient, in which null directions contribute
    nothing; a zero matrix, and rows of zeros, receive a gradient of zero. Half
    precision input is computed in float32, and autocast is off inside.

    Args:
        matrix: A, shape (..., B, C), floating point.
        method: One of :data:`METHODS`.

    Returns:
        ||A||_*, shape (...), in float32 (float64 for float64 input). Zero for B = 0 or
        C = 0. NaN, with a NaN gradient, where A holds a NaN or an infinity.

    Raises:
        ValueError: If ``method`` is unknown, or ``matrix`` is not floating point or has
            fewer than two dimensions.
        RuntimeError: When differentiated twice.
    """
    if method not in METHODS:
        raise ValueError(f'method: expected one of {METHODS}, got {method!r}')
    if matrix.dim() < 2 or not matrix.is_floating_point():
        raise ValueError(
            'matrix: expected a floating point tensor of shape (..., B, C), got '
            f'{matrix.dtype} of shape {tuple(matrix.shape)}'
        )
    if method == 'auto':
        method = 'gram' if matrix.device.type == 'cpu' else 'newton_schulz'
    with torch.autocast(device_type=matrix.device.type, enabled=False):
        if matrix.dtype not in (torch.float32, torch.float64):
            matrix = matrix.float()
        if matrix.numel() == 0:
            return matrix.sum(dim=(-2, -1))
        value: Tensor = _NuclearNorm.apply(matrix, method)  # type: ignore[no-untyped-call]
    return value


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, method: str) -> Tensor:
        value, slope = _SOLVERS[method](matrix)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor, None]:
        # Gradients are only enabled here under create_graph=True. The slope has no
        # graph, so that a second derivative would silently lack its terms.
        if torch.is_grad_enabled():
            raise RuntimeError('nuclear_norm can not be differentiated twice')
        (slope,) = ctx.saved_tensors
        return grad_value[..., None, None] * slope, None


def _svd(A: Tensor) -> tuple[Tensor, Tensor]:
    finite, A = _without_non_finite(A)
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    cutoff = torch.finfo(A.dtype).eps * max(A.shape[-2:]) * S[..., :1]
    slope = (U * (cutoff < S).to(A.dtype).unsqueeze(-2)) @ Vh
    return _mark_non_finite(S.sum(-1), slope, finite)


def _gram(A: Tensor) -> tuple[Tensor, Tensor]:
    # Elsewhere the look at the eigenvalues would wait for the device, and a compiled
    # graph can not branch on them.
    if (
        A.dtype == torch.float32
        and A.device.type == 'cpu'
        and not torch.compiler.is_compiling()
    ):
        solution = _gram_in_float32(A)
        if solution is not None:
            return solution
    finite, A = _without_non_finite(A)
    wide = A.shape[-2] < A.shape[-1]
    X = (A.mT if wide else A).double()
    eigenvalues, V = torch.linalg.eigh(X.mT @ X)
    squares = eigenvalues.clamp(min=0)
    # eigh errs by a few eps * largest; in sigma that is sqrt(eps), about 1e-8.
    eps = torch.finfo(torch.float64).eps
    cutoff = 8 * eps * max(A.shape[-2:]) * squares[..., -1:]
    keep = squares > cutoff
    sigma = torch.where(keep, squares, 0.0).sqrt()
    inverse = torch.where(keep, squares, 1.0).rsqrt() * keep
    # A (A^T A)^-1/2, small matrices first.
    root = (V * inverse.unsqueeze(-2)) @ V.mT
    slope = (root @ X.mT if wide else X @ root).to(A.dtype)
    return _mark_non_finite(sigma.sum(-1).to(A.dtype), slope, finite)


def _gram_in_float32(A: Tensor) -> tuple[Tensor, Tensor] | None:
    """Value and slope in float32; None where that is not accurate enough.

    eigh errs by about eps times the largest eigenvalue. Probabilities have one that
    stands out, of about the mean row. Large matrices lose it before: its direction u
    is taken out of matrix and Gram matrix, and A u / |A u| u^T added to the slope.
    """
    wide = A.shape[-2] < A.shape[-1]
    X = A.mT if wide else A
    G = X.mT @ X
    trace = G.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    # Non-finite entries show on the diagonal, the sums of squares.
    if not bool(trace.isfinite().all()):
        return None
    n = G.shape[-1]
    u = largest = rest = None
    if n >= _LARGE:
        u, largest = _outlier(G)
        # In its place comes an eigenvalue amid the others.
        rest = (trace - largest) / n
        G = G - ((largest - rest) * u).unsqueeze(-1) * u.unsqueeze(-2)
    squares, V = torch.linalg.eigh(G)
    scale = squares[..., -1:]
    if largest is not None:
        # The rounding of G itself is random, and so smaller by the root of its size.
        scale = scale + largest / n**0.5
    # Of an eigenvalue, and so of that direction of the slope.
    error = torch.finfo(A.dtype).eps * scale / squares
    accurate = (squares[..., 0] > 0) & (error.square().mean(-1) < _ERROR**2)
    if not bool(accurate.all()):
        return None
    root = (V * squares.rsqrt().unsqueeze(-2)) @ V.mT
    value = squares.sqrt().sum(-1)
    if u is None or rest is None:
        slope = X @ root
    else:
        Xu = X @ u.unsqueeze(-1)
        sigma = torch.linalg.vector_norm(Xu, dim=-2)
        value += torch.where(sigma > 0, sigma - rest.sqrt(), 0.0).squeeze(-1)
        left = Xu / torch.where(sigma > 0, sigma, 1.0).unsqueeze(-1)
        slope = (X - Xu * u.unsqueeze(-2)) @ root
        slope += left * u.unsqueeze(-2)
    return value, slope.mT if wide else slope


def _outlier(G: Tensor) -> tuple[Tensor, Tensor]:
    """An eigenvector u (..., n) and the largest eigenvalue (..., 1) of G.

    By a few power iterations. They only converge where the eigenvalue stands out;
    elsewhere u is zero and the eigenvalue an estimate.
    """
    u = G.sum(-1)
    for _ in range(_POWER_STEPS):
        norm = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        u = u / torch.where(norm > 0, norm, 1.0)
        Gu = (G @ u.unsqueeze(-1)).squeeze(-1)
        u, last = Gu, u
    largest = (last * Gu).sum(-1, keepdim=True)
    residual = torch.linalg.vector_norm(Gu - largest * last, dim=-1, keepdim=True)
    return torch.where(residual < _CONVERGED * largest, last, 0.0), largest


def _newton_schulz(A: Tensor) -> tuple[Tensor, Tensor]:
    wide = A.shape[-2] < A.shape[-1]
    X = A if wide else A.mT
    # The Frobenius norm bounds the largest singular value. 0 / 1 keeps a zero
    # matrix at a zero slope.
    norm = torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True)
    X = (X / torch.where(norm == 0, 1.0, norm)).reshape(-1, *X.shape[-2:])
    # Three kernels a step: on a GPU starting them takes the time of small matrices.
    for a, b, c in (_LIFT,) * _LIFT_STEPS + (_CONVERGE,) * _CONVERGE_STEPS:
        G = X @ X.mT
        polynomial = torch.baddbmm(G, G, G, beta=b, alpha=c)
        X = torch.baddbmm(X, polynomial, X, beta=a)
    X = X.reshape(A.shape if wide else A.mT.shape)
    slope = X if wide else X.mT
    # <A, U V^T> = tr(V S U^T U V^T) = sum of S. Non-finite input spreads by itself.
    return (A * slope).sum(dim=(-2, -1)), slope


def _fast(A: Tensor) -> tuple[Tensor, Tensor]:
    norms = torch.linalg.vector_norm(A, dim=-2)
    largest, columns = norms.topk(min(A.shape[-2:]), dim=-1)
    # Rows of zeros add no rank, so they do not count towards B.
    rows = (A != 0).any(dim=-1).sum(dim=-1, keepdim=True)
    taken = torch.arange(columns.shape[-1], device=A.device) < rows
    largest = torch.where(taken, largest, 0.0)
    chosen = torch.zeros_like(norms).scatter(-1, columns, taken.to(A.dtype))
    scale = torch.where(norms > 0, chosen / torch.where(norms > 0, norms, 1.0), 0.0)
    # NaN > 0 is false: put non-finite columns back into the slope.
    scale = torch.where(torch.isfinite(norms), scale, torch.nan)
    return largest.sum(-1), A * scale.unsqueeze(-2)


def _without_non_finite(A: Tensor) -> tuple[Tensor, Tensor]:
    """LAPACK raises, or loops, on NaN: decompose zeros instead and mark them after."""
    finite = torch.isfinite(A).all(dim=-1).all(dim=-1)
    return finite, torch.where(finite[..., None, None], A, 0.0)


def _mark_non_finite(
    value: Tensor, slope: Tensor, finite: Tensor
) -> tuple[Tensor, Tensor]:
    return (
        torch.where(finite, value, torch.nan),
        torch.where(finite[..., None, None], slope, torch.nan),
    )


_SOLVERS = {
    'svd': _svd,
    'gram': _gram,
    'newton_schulz': _newton_schulz,
    'fast': _fast,
}
