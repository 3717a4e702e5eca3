"""Large arrays: every method against the others, and the pieces against the nodal equations."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from calib.crossbar import sparse_lines
from calib.crossbar.line_resistance import Lines, transfer_matrix
from calib.crossbar.sparse_lines import array_currents, line_drops, line_impedances, nodal_matrix
from calib.errors import FitError, OptionError

LINES = [
    Lines(1, 2, 3, 4), Lines(1, 2, 3, 4, both_ends=True), Lines(1e4, 1e5), Lines(0, 2, 3, 4, both_ends=True),
    Lines(1, 0, 0, 4), Lines(0, 0, 3, 4, both_ends=True), Lines(sense=4), Lines(driver=4), Lines(4e5, 4e5), Lines(),
]  # fmt: skip


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("lines", LINES, ids=str)
@pytest.mark.parametrize("shape", [(40, 30), (30, 40)], ids=str)
def test_methods_agree(shape, lines):
    g, v = 1e-4 * draw(*shape) + 1e-6, draw(5, shape[0], seed=1)
    expected = v @ transfer_matrix(g, lines)
    for method in sparse_lines.METHODS:
        found = array_currents(v, g, lines, method=method)
        torch.testing.assert_close(found.currents, expected, rtol=0, atol=1e-9 * float(expected.max()))
        if found.method == "iteration" and not lines.ideal:
            assert float(found.residual.max()) <= 1e-10
            assert found.steps > 0


def test_conductances_over_decades_take_more_steps_and_still_converge():
    lines, v = Lines(50, 50), draw(4, 40, seed=1)
    wide = 10 ** (-7 + 4 * draw(40, 40))
    wide[draw(40, 40, seed=2) < 0.1] = 0.0  # no device at all
    found = array_currents(v, wide, lines, method="iteration")
    assert found.steps > array_currents(v, 1e-4 + 1e-4 * draw(40, 40), lines, method="iteration").steps
    expected = v @ transfer_matrix(wide, lines)
    torch.testing.assert_close(found.currents, expected, rtol=0, atol=1e-9 * float(expected.max()))


@pytest.mark.parametrize("lines", LINES, ids=str)
def test_running_sums_are_the_impedances_of_the_lines(lines):
    i = draw(6, 2, 5)
    word, bit = line_impedances(6, 5, lines)
    torch.testing.assert_close(line_drops(i, lines), i @ word + torch.einsum("ik,kbj->ibj", bit, i))


@pytest.mark.parametrize("lines", LINES[:3], ids=str)
def test_impedances_are_those_of_the_nodal_equations(lines):
    """A current out of a word line's node and into a bit line's node, without devices."""
    m, n = 4, 3
    a, _, _, _ = nodal_matrix(np.zeros((m, n)), lines)
    i = draw(m, 1, n)
    p = scipy.sparse.linalg.spsolve(a, np.concatenate([-i.numpy().ravel(), i.numpy().ravel()]))
    drop = -(p[: m * n] - p[m * n :]).reshape(m, n)
    np.testing.assert_allclose(line_drops(i, lines)[:, 0].numpy(), drop, rtol=1e-9)


def test_the_method_follows_from_the_size():
    assert sparse_lines._cheaper(16, 1024, 1024) == "iteration"
    assert sparse_lines._cheaper(1024, 1024, 1024) == "elimination"
    assert sparse_lines._cheaper(16, 64, 64) == "elimination"


def test_what_does_not_converge_is_said_and_eliminated_where_the_choice_is_free(monkeypatch):
    g, v = 10 ** (-8 + 5 * draw(40, 40)), draw(2, 40, seed=1)
    monkeypatch.setattr(sparse_lines, "STEPS", 1)
    monkeypatch.setattr(sparse_lines, "ROUNDS", 2)
    monkeypatch.setattr(sparse_lines, "_cheaper", lambda *_: "iteration")
    with pytest.raises(FitError, match="40 x 40 devices did not converge: Kirchhoff's laws are violated by"):
        array_currents(v, g, Lines(1e3, 1e3), method="iteration")
    found = array_currents(v, g, Lines(1e3, 1e3))
    assert found.method == "elimination"
    expected = v @ transfer_matrix(g, Lines(1e3, 1e3))
    torch.testing.assert_close(found.currents, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


def test_bad_input_is_refused():
    with pytest.raises(OptionError, match="the method 'magic' is not known; expected one of auto"):
        array_currents(draw(2, 4), draw(4, 3), Lines(1, 1), method="magic")
    with pytest.raises(OptionError, match=r"voltages \(2, 5\) do not fit an array \(4, 3\)"):
        array_currents(draw(2, 5), draw(4, 3), Lines(1, 1))
