"""The joint solution of nonlinear devices and resistive lines: Kirchhoff's laws, every law, strong lines, failure."""

import numpy as np
import pytest
import torch

from calib.crossbar import newton_steps, nonlinear_lines
from calib.crossbar.line_currents import tile_currents, tile_currents_nonlinear
from calib.crossbar.line_resistance import Lines
from calib.crossbar.nonlinear_lines import Settings, joint_solution, preconditioner
from calib.crossbar.sparse_lines import line_drops
from calib.errors import FitError
from calib.iv_models import all_names, iv_model
from calib.iv_models.base import IVModel


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def typical(law: IVModel, *shape: int) -> dict[str, torch.Tensor]:
    """Draw devices from the range in which memristive devices are usually found."""
    rng = np.random.default_rng(0)
    values = {}
    for p in law.parameters:
        low, high = p.typical
        is_log = p.transform == "log"
        drawn = np.exp(rng.uniform(np.log(low), np.log(high), shape)) if is_log else rng.uniform(low, high, shape)
        values[p.name] = torch.as_tensor(drawn)
    return values


def lines_of(strength: float, law: IVModel, p: dict[str, torch.Tensor], v: torch.Tensor, n: int) -> Lines:
    """Return lines with r G n = `strength`, G the mean conductance at the voltages v."""
    current = law.current(v.unsqueeze(-1), xp=torch, **p)
    g = float(current.abs().mean() / v.abs().mean())
    return Lines(strength / (g * n), 0.5 * strength / (g * n), 1 / (g * n), 0.3 / (g * n))


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])  # r G n
@pytest.mark.parametrize("name", all_names())
def test_the_solution_obeys_kirchhoffs_laws(name, strength):
    """x = u - Z I(x) by running sums along the lines, which the solution does not use; word lines of both signs."""
    law = iv_model(name)
    m, n = 12, 9
    p, v = typical(law, m, n), draw(4, m, seed=1) * torch.where(draw(4, m, seed=2) < 0.5, -1.0, 1.0)
    v[:, :3] = 0.0
    lines = lines_of(strength, law, p, v, n)
    names, values, voltage = law.parameter_names, tuple(p[k] for k in law.parameter_names), v.T.contiguous()
    factors = preconditioner(law, names, values, voltage, lines)
    x, out, convergence = joint_solution(factors, law, names, values, voltage, Settings(1e-11))
    assert float(convergence.residual.max()) <= 1e-11
    current = law.current(x, xp=torch, **{k: value.unsqueeze(1) for k, value in p.items()})
    torch.testing.assert_close(x, v.T.unsqueeze(-1) - line_drops(current, lines), rtol=0, atol=1e-7)
    torch.testing.assert_close(out, current.sum(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["poole-frenkel", "diode", "fowler-nordheim"])
def test_inputs_solved_together_are_those_solved_alone(name):
    """Whichever way each takes: the residual bounds the outputs' errors whatever the preconditioner was."""
    law = iv_model(name)
    p, v = typical(law, 10, 6), draw(5, 10, seed=1)
    lines = lines_of(10.0, law, p, v, 6)
    together, _ = tile_currents_nonlinear(v, p, law, lines, 1e-12)
    for k in range(5):
        alone, _ = tile_currents_nonlinear(v[k : k + 1], p, law, lines, 1e-12)
        torch.testing.assert_close(together[k : k + 1], alone, rtol=0, atol=1e-10 * float(alone.abs().max()))


def test_the_residual_bounds_the_error_of_the_outputs():
    law = iv_model("poole-frenkel")
    p, v = {"c": 1e-4 * draw(12, 9), "gamma": 1 + 3 * draw(12, 9, seed=3)}, draw(6, 12, seed=1)
    lines = Lines(300, 200, 30, 4)
    exact, _ = tile_currents_nonlinear(v, p, law, lines, 1e-13)
    for steps in (1, 2, 3):
        found, convergence = tile_currents_nonlinear(v, p, law, lines, 1e-13, iterations=steps)
        error = (found - exact).abs().sum(-1) / found.sum(-1)
        assert bool((error <= 2 * convergence.residual).all())
        assert float(convergence.residual.max()) > 1e-13


def test_linear_devices_take_the_linear_solution():
    g, v, lines = 1e-4 * draw(2, 6, 5), draw(2, 3, 6, seed=1), Lines(100, 200, 30, 4)
    found, convergence = tile_currents_nonlinear(v, {"g": g}, iv_model("ohmic"), lines, 1e-13)
    torch.testing.assert_close(found, tile_currents(v, g, lines), rtol=1e-12, atol=0)
    assert int(convergence.iterations.max()) == 1


def test_lines_without_resistance_are_the_sum_of_the_devices():
    law = iv_model("poole-frenkel")
    p, v = typical(law, 6, 5), draw(3, 6, seed=1).requires_grad_()
    expected = law.current(v.unsqueeze(-1), xp=torch, **p).sum(1)
    found, convergence = tile_currents_nonlinear(v, p, law, Lines())
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    assert float(convergence.residual.max()) == 0
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), v)[0] for y in (found, expected)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("few_many", [(12, 40), (1, 40), (1, 1)])
def test_every_way_to_a_newton_step_gives_the_same(few_many, monkeypatch):
    """Conjugate gradients with the first preconditioner, with a new one, and an elimination for each input."""
    law = iv_model("poole-frenkel")
    p, v = typical(law, 8, 6), draw(4, 8, seed=1)
    lines = lines_of(1.0, law, p, v, 6)
    c = p["c"].clone().requires_grad_()
    expected, _ = tile_currents_nonlinear(v, {**p, "c": c}, law, lines, 1e-12)
    by_c = torch.autograd.grad(expected.sum(), c)[0]
    monkeypatch.setattr(newton_steps, "_FEW", few_many[0])
    monkeypatch.setattr(newton_steps, "_MANY", few_many[1])
    found, convergence = tile_currents_nonlinear(v, {**p, "c": c}, law, lines, 1e-12)
    assert float(convergence.residual.max()) <= 1e-12
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), c)[0], by_c, rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [2**6, 2**30])
def test_how_many_arrays_are_solved_at_a_time_changes_nothing(size, monkeypatch):
    law = iv_model("poole-frenkel")
    p, v, lines = typical(law, 3, 2, 6, 5), draw(3, 2, 4, 6, seed=1), Lines(1e3, 1e3)
    expected = torch.stack([
        torch.stack([tile_currents_nonlinear(v[i, k], {n: q[i, k] for n, q in p.items()}, law, lines, 1e-13)[0]
                     for k in range(2)]) for i in range(3)
    ])  # fmt: skip
    monkeypatch.setattr(nonlinear_lines, "_AT_A_TIME", size)
    found, convergence = tile_currents_nonlinear(v, p, law, lines, 1e-13)
    assert convergence.iterations.shape == (3, 2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_a_failure_is_reported_with_what_was_reached():
    law = iv_model("poole-frenkel")
    p, v = typical(law, 6, 5), draw(3, 6, seed=1)
    _, convergence = tile_currents_nonlinear(v, p, law, Lines(1e5, 1e5), 1e-10, iterations=1)
    assert float(convergence.residual.max()) > 1e-10
    with pytest.raises(FitError, match="did not converge in 1 iterations: Kirchhoff's current law is violated by"):
        convergence.check(1e-10)


def test_a_solution_that_is_not_a_number_fails_the_check():
    p = {"c": torch.full((3, 2), float("nan"), dtype=torch.float64), "gamma": draw(3, 2)}
    _, convergence = tile_currents_nonlinear(draw(2, 3), p, iv_model("poole-frenkel"), Lines(10, 10))
    with pytest.raises(FitError, match="violated by nan"):
        convergence.check(1e-6)
