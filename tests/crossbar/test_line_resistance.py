"""Line resistance: the transfer matrix against sparse direct solutions of the nodal equations, and limits."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import splu

from calib.crossbar.line_resistance import Lines, transfer_matrix
from calib.crossbar.sparse_lines import array_currents
from calib.errors import FitError, OptionError

LINES = [
    Lines(1, 2, 3, 4), Lines(1, 2, 3, 4, both_ends=True), Lines(1e4, 1e5), Lines(1e-3, 1e4, 10, 0, both_ends=True),
    Lines(1e7, 1e7), Lines(0.35, 0.32),
]  # fmt: skip


def arrays(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * 1e-4 + 1e-6


def nodal(g: np.ndarray, lines: Lines) -> tuple[scipy.sparse.csc_matrix, np.ndarray, float]:
    """Return the nodal matrix, the sources of each input, and the conductance of a bit line's end."""
    m, n = g.shape
    word, bit = np.arange(m * n).reshape(m, n), m * n + np.arange(m * n).reshape(m, n)
    links = [(word, bit, g), (word[:, 1:], word[:, :-1], 1 / lines.word_segment),
             (bit[1:], bit[:-1], 1 / lines.bit_segment)]  # fmt: skip
    matrix = scipy.sparse.lil_matrix((2 * m * n, 2 * m * n))
    for first, second, value in links:
        for a, b, x in zip(first.ravel(), second.ravel(), np.broadcast_to(value, first.shape).ravel(), strict=True):
            matrix[a, a] += x
            matrix[b, b] += x
            matrix[a, b] -= x
            matrix[b, a] -= x
    source, out = 1 / (lines.word_segment + lines.driver), 1 / (lines.bit_segment + lines.sense)
    right = np.zeros((2 * m * n, m))
    for i in range(m):
        for node in (word[i, 0], word[i, -1])[: 2 if lines.both_ends else 1]:
            matrix[node, node] += source
            right[node, i] += source
    for j in range(n):
        matrix[bit[-1, j], bit[-1, j]] += out
    return matrix.tocsc(), right, out


def reference(g: np.ndarray, lines: Lines) -> np.ndarray:
    """Return the transfer matrix by one sparse factorisation of all nodes."""
    m, n = g.shape
    matrix, right, out = nodal(g, lines)
    potential = splu(matrix).solve(right)  # (node, input)
    return out * potential[2 * m * n - n :].T


@pytest.mark.parametrize("lines", LINES, ids=str)
@pytest.mark.parametrize("shape", [(5, 4), (4, 7), (20, 30), (1, 5), (5, 1), (1, 1)], ids=str)
def test_agrees_with_the_nodal_equations(shape, lines):
    g = arrays(*shape)
    expected = reference(g.numpy(), lines)
    found = transfer_matrix(g, lines).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-11 * expected.max())  # the sparse solution's own error


def test_arrays_are_solved_together():
    g = arrays(2, 3, 6, 5)
    together = transfer_matrix(g, LINES[0])
    for index in np.ndindex(2, 3):
        torch.testing.assert_close(together[index], transfer_matrix(g[index], LINES[0]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("strength", [1.0, 1e2, 1e3])  # r G n
def test_a_long_array_obeys_kirchhoffs_laws(strength):
    """With 96 x 96 devices: the outputs' sum is the current that the drivers send in, by the nodal equations."""
    n = 96
    g = arrays(n, n)
    r = strength / (n * float(g.mean()))
    lines = Lines(r, r)
    transfer = transfer_matrix(g, lines).numpy()
    matrix, right, out = nodal(g.numpy(), lines)
    potential = splu(matrix).solve(right[:, :3])
    sent = np.array([(1 / r) * (1 - potential[k * n, k]) for k in range(3)])  # through the first segment of its line
    back = np.array([sum(potential[i * n, k] / r for i in range(n) if i != k) for k in range(3)])  # into the others
    np.testing.assert_allclose(transfer[:3].sum(1), sent - back, rtol=0, atol=1e-9 * transfer.max())
    np.testing.assert_allclose(transfer[:3], out * potential[2 * n * n - n :].T, rtol=0, atol=1e-9 * transfer.max())


ZERO = [
    Lines(0, 5), Lines(5, 0), Lines(0, 0, 5), Lines(0, 0, 0, 5), Lines(0, 0, 3, 5), Lines(5, 0, 2, 3),
    Lines(0, 5, 2, 3), Lines(0, 5, 3, 0, both_ends=True), Lines(5, 0, 3, 2, both_ends=True),
    Lines(0, 0, 3, 5, both_ends=True),
]  # fmt: skip


@pytest.mark.parametrize("lines", ZERO, ids=str)
@pytest.mark.parametrize("strength", [1.0, 1e3])
def test_resistances_of_zero_are_exact(lines, strength):
    """Against a sparse solution in which a line without segments is one node, and drivers' and ground's are none."""
    g = arrays(40, 30)
    scale = strength / (30 * float(g.mean()))
    lines = Lines(lines.word_segment * scale, lines.bit_segment * scale, lines.driver, lines.sense, lines.both_ends)
    expected = array_currents(torch.eye(40, dtype=torch.float64), g, lines, method="sparse").currents
    torch.testing.assert_close(transfer_matrix(g, lines), expected, rtol=0, atol=1e-9 * float(expected.max()))


@pytest.mark.parametrize(
    ("size", "both_ends", "strength"),
    [(128, False, 1e-2), (128, True, 1e-2), (128, True, 1.0), (128, True, 1e3), (256, False, 1e3)],
)  # strength is r G n
def test_a_large_tile_agrees_with_the_sparse_solution(size, both_ends, strength):
    g = arrays(size, size)
    r = strength / (size * float(g.mean()))
    lines = Lines(r, 0.7 * r, 3 * r, 2 * r, both_ends)
    v = torch.rand(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = array_currents(v, g, lines, method="sparse").currents
    torch.testing.assert_close(v @ transfer_matrix(g, lines), expected, rtol=0, atol=1e-9 * float(expected.max()))


@pytest.mark.parametrize("lines", ZERO, ids=str)
def test_a_resistance_of_zero_is_the_limit_of_small_ones(lines):
    g = arrays(6, 5)
    small = Lines(*(max(getattr(lines, k), 1e-7) for k in ("word_segment", "bit_segment")), lines.driver, lines.sense,
                  lines.both_ends)  # fmt: skip
    torch.testing.assert_close(transfer_matrix(g, lines), transfer_matrix(g, small), rtol=1e-9, atol=0)


def test_one_device_is_a_series_of_resistors():
    g = torch.tensor([[1e-3]], dtype=torch.float64)
    found = transfer_matrix(g, Lines(1, 2, 30, 40))
    assert float(found) == pytest.approx(1 / (1e3 + 1 + 2 + 30 + 40), rel=1e-14)


def test_drivers_without_segments_share_the_current():
    """One word line behind a driver R: I_j = V G_j / (1 + R sum G)."""
    g = arrays(1, 7)
    torch.testing.assert_close(transfer_matrix(g, Lines(driver=1e3)), g / (1 + 1e3 * g.sum()), rtol=1e-13, atol=0)


def test_no_resistance_is_the_ideal_array():
    g = arrays(6, 5)
    assert torch.equal(transfer_matrix(g, Lines()), g)


def test_a_very_small_resistance_changes_nothing():
    g = arrays(8, 6)
    torch.testing.assert_close(transfer_matrix(g, Lines(1e-14, 1e-14, 1e-14, 1e-14)), g, rtol=1e-13, atol=0)


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_impossible_conductances_are_refused(wrong):
    g = arrays(20, 20)
    g[2, 3] = wrong
    with pytest.raises(FitError, match="have no solution in float64: .* conductances are negative or not numbers"):
        transfer_matrix(g, Lines(100, 200))


@pytest.mark.parametrize("resistance", [1.0, 1e4, 1e8, 1e12])
def test_strong_lines_in_single_precision(resistance):
    lines = Lines(resistance, resistance)
    expected = transfer_matrix(arrays(20, 20), lines)
    found = transfer_matrix(arrays(20, 20).float(), lines)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_resistances_are_refused(value):
    with pytest.raises(OptionError, match="bit_segment"):
        Lines(bit_segment=value)
