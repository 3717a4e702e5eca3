"""Currents of tiles behind resistive lines as layers use them: gradients, torch.func, power, chips that are held."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch.func import grad, jacrev, vmap

from calib.crossbar import line_currents, nonlinear_lines
from calib.crossbar.line_currents import (
    LinearTiles,
    NonlinearTiles,
    tile_currents,
    tile_currents_nonlinear,
    tile_power,
)
from calib.crossbar.line_resistance import Lines, transfer_matrix
from calib.crossbar.sparse_lines import line_drops, nodal_matrix
from calib.errors import OptionError
from calib.iv_models import iv_model

LINES = [
    Lines(1, 2, 3, 4), Lines(1, 2, 3, 4, both_ends=True), Lines(1e4, 1e5), Lines(0, 20, 3, 4), Lines(10, 0),
    Lines(driver=300), Lines(sense=500), Lines(driver=300, both_ends=True), Lines(1e7, 1e7), Lines(),
]  # fmt: skip
UNIT = [  # for conductances of about 1 S, so that the absolute tolerance of gradcheck means something
    Lines(1e-3, 2e-3, 3e-4, 4e-4), Lines(1e-3, 2e-3, 3e-4, 4e-4, both_ends=True), Lines(0, 0.2, 0.03, 0), Lines(0.1, 0),
    Lines(driver=0.3), Lines(sense=0.5), Lines(10, 10, 0.1),
]  # fmt: skip
POOLE_FRENKEL = iv_model("poole-frenkel")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def devices(*shape: int, scale: float = 1e-4) -> dict[str, torch.Tensor]:
    return {"c": scale * (draw(*shape) + 0.01), "gamma": 0.5 + 2 * draw(*shape, seed=1)}


@pytest.mark.parametrize("lines", LINES, ids=str)
def test_currents_are_those_of_the_transfer_matrix(lines):
    g, v = 1e-4 * draw(2, 6, 5) + 1e-6, draw(2, 3, 6, seed=1)
    torch.testing.assert_close(tile_currents(v, g, lines), v @ transfer_matrix(g, lines), rtol=1e-11, atol=0)


def test_leading_dimensions_broadcast():
    g, v, lines = 1e-4 * draw(4, 1, 6, 5), draw(3, 2, 6, seed=1), LINES[0]
    expected = torch.stack([torch.stack([tile_currents(v[k], g[i, 0], lines) for k in range(3)]) for i in range(4)])
    torch.testing.assert_close(tile_currents(v, g, lines), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("lines", UNIT, ids=str)
def test_gradients_of_first_and_second_order(lines):
    g, v = (draw(2, 5, 4) + 0.01).requires_grad_(), draw(2, 3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, g: tile_currents(v, g, lines), (v, g))
    assert torch.autograd.gradgradcheck(lambda v, g: tile_currents(v, g, lines), (v, g))


@pytest.mark.parametrize("lines", [UNIT[0], UNIT[1], Lines(0, 0.2), Lines(0.1, 0), Lines(10, 10)], ids=str)
def test_gradients_of_first_and_second_order_with_a_law(lines):
    p, v = devices(3, 2, scale=1.0), draw(2, 3, seed=1).requires_grad_()

    def run(v, c, gamma):
        return tile_currents_nonlinear(v, {"c": c, "gamma": gamma}, POOLE_FRENKEL, lines, 1e-14)[0]

    values = (v, p["c"].requires_grad_(), p["gamma"].requires_grad_())
    assert torch.autograd.gradcheck(run, values)
    assert torch.autograd.gradgradcheck(run, values)


@pytest.mark.parametrize("name", ["hyperbolic-sine", "diode", "quantum-point-contact", "poole-frenkel+series"])
def test_gradients_of_other_laws(name):
    law = iv_model(name)
    typical = {p.name: p.typical for p in law.parameters}
    generator = torch.Generator().manual_seed(3)
    values = []
    for low, high in typical.values():
        low, high = float(np.sqrt(low * high)) if low > 0 else (low + high) / 2, high
        values.append(low + 0.1 * (high - low) * torch.rand(3, 2, generator=generator, dtype=torch.float64))
    v = draw(2, 3, seed=1)
    conductance = float((law.current(v.mean(), xp=torch, **dict(zip(typical, values, strict=True))) / v.mean()).mean())
    lines = Lines(0.1 / conductance, 0.1 / conductance)
    sizes = [float(x.abs().max()) for x in values]

    def run(v, *scaled):
        p = {name: x * size for name, x, size in zip(typical, scaled, sizes, strict=True)}
        return tile_currents_nonlinear(v, p, law, lines, 1e-14)[0] / conductance

    scaled = [(x / size).requires_grad_() for x, size in zip(values, sizes, strict=True)]
    assert torch.autograd.gradcheck(run, (v.requires_grad_(), *scaled), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lines", [LINES[0], LINES[1], LINES[3]], ids=str)
def test_torch_func_maps_over_chips(lines):
    g, v = 1e-4 * draw(3, 2, 6, 5), draw(2, 4, 6, seed=1)

    def loss(g, v):
        return tile_currents(v, g, lines).square().sum() * 1e8

    torch.testing.assert_close(
        vmap(lambda g: tile_currents(v, g, lines))(g), torch.stack([tile_currents(v, x, lines) for x in g])
    )
    torch.testing.assert_close(
        vmap(lambda v: tile_currents(v, g[0], lines))(torch.stack([v, 2 * v])),
        torch.stack([tile_currents(v, g[0], lines), tile_currents(2 * v, g[0], lines)]),
    )
    found = vmap(grad(loss, argnums=(0, 1)), in_dims=(0, None))(g, v)
    for k in range(3):
        each, voltage = g[k].clone().requires_grad_(), v.clone().requires_grad_()
        expected = torch.autograd.grad(loss(each, voltage), (each, voltage))
        torch.testing.assert_close((found[0][k], found[1][k]), expected)
    assert jacrev(jacrev(loss))(g[0], v).shape == (2, 6, 5, 2, 6, 5)


@pytest.mark.parametrize("name", ["poole-frenkel", "hyperbolic-sine"])  # the second looks at the voltages' signs
def test_torch_func_maps_over_chips_with_a_law(name):
    law, lines, v = iv_model(name), Lines(100, 200, 30, 4), draw(2, 4, 6, seed=1)
    scales = 1e-4 * draw(3, 2, 6, 5) + 1e-6
    shape = 0.5 + draw(2, 6, 5, seed=2)

    def run(scale, v):
        return tile_currents_nonlinear(
            v, dict(zip(law.parameter_names, (scale, shape), strict=True)), law, lines, 1e-13
        )

    def loss(scale, v):
        return run(scale, v)[0].square().sum() * 1e8

    out, convergence = vmap(run, in_dims=(0, None))(scales, v)
    assert out.shape == (3, 2, 4, 5)
    assert convergence.residual.shape == (3, 2, 4)
    assert float(convergence.residual.max()) <= 1e-13
    torch.testing.assert_close(out, torch.stack([run(s, v)[0] for s in scales]), rtol=1e-10, atol=0)
    many = vmap(lambda v: run(scales[0], v)[0])(torch.stack([v, 2 * v]))
    torch.testing.assert_close(many[1], run(scales[0], 2 * v)[0], rtol=1e-10, atol=0)
    found = vmap(grad(loss), in_dims=(0, None))(scales, v)
    for k in range(3):
        each = scales[k].clone().requires_grad_()
        torch.testing.assert_close(found[k], torch.autograd.grad(loss(each, v), each)[0], rtol=1e-9, atol=0)


def heat(g: np.ndarray, v: np.ndarray, lines: Lines) -> tuple[float, float]:
    """Return the heat in the devices and in everything else, from the potentials of all nodes."""
    m, n = g.shape
    a, b, _, _ = nodal_matrix(g, lines)
    p = scipy.sparse.linalg.spsolve(a, b @ v)
    word, bit = p[: m * n].reshape(m, n), p[m * n :].reshape(m, n)
    inside = (np.square(np.diff(word, axis=1)).sum() / lines.word_segment
              + np.square(np.diff(bit, axis=0)).sum() / lines.bit_segment)  # fmt: skip
    ends = np.square(v - word[:, 0]).sum() + lines.both_ends * np.square(v - word[:, -1]).sum()
    ends = ends / (lines.word_segment + lines.driver) + np.square(bit[-1]).sum() / (lines.bit_segment + lines.sense)
    return float((g * (word - bit) ** 2).sum()), float(inside + ends)


@pytest.mark.parametrize("lines", [Lines(100, 200, 30, 4), Lines(1e3, 1e3, 1, 1, both_ends=True)], ids=str)
def test_energy_is_conserved(lines):
    """What the drivers send is the heat in devices, lines, drivers and sense resistances."""
    g, v = 1e-4 * draw(2, 6, 5) + 1e-6, draw(2, 3, 6, seed=1) - 0.3
    for power in (tile_power(v, g, lines), LinearTiles(g, lines).power(v)):
        for k in np.ndindex(2, 3):
            in_devices, elsewhere = heat(g[k[0]].numpy(), v[k].numpy(), lines)
            assert float(power.devices[k]) == pytest.approx(in_devices, rel=1e-10)
            assert float(power.drawn[k]) == pytest.approx(in_devices + elsewhere, rel=1e-10)


def test_energy_is_conserved_with_a_law():
    """The heat in lines, drivers and sense resistances follows from the currents through each segment."""
    p, v, lines = devices(6, 5), 0.5 * draw(3, 6, seed=1), Lines(100, 200, 30, 4)
    tiles = NonlinearTiles(p, POOLE_FRENKEL, lines, v, 1e-13)
    out, power, _ = tiles.evaluate(v)
    x = solved_voltages(p, v, lines)
    i = POOLE_FRENKEL.current(x, xp=torch, **p)  # (batch, word_line, bit_line)
    along_word = i.flip(-1).cumsum(-1).flip(-1)
    along_bit = i.cumsum(-2)
    lost = (100 * along_word.square()).sum((-1, -2)) + 30 * along_word[..., 0].square().sum(-1)
    lost = lost + (200 * along_bit.square()).sum((-1, -2)) + 4 * along_bit[..., -1, :].square().sum(-1)
    torch.testing.assert_close(along_bit[..., -1, :], out, rtol=1e-9, atol=0)
    torch.testing.assert_close(power.devices, (i * x).sum((-1, -2)), rtol=1e-9, atol=0)
    torch.testing.assert_close(power.drawn, power.devices + lost, rtol=1e-9, atol=0)


def solved_voltages(p: dict[str, torch.Tensor], v: torch.Tensor, lines: Lines) -> torch.Tensor:
    """Return the devices' voltages (batch, word_line, bit_line) by a plain damped iteration on Kirchhoff's laws."""
    u = v.T.unsqueeze(-1)
    first = {name: value.unsqueeze(1) for name, value in p.items()}
    x = (u + torch.zeros_like(first["c"])).clone()
    for _ in range(3000):
        step = u - line_drops(POOLE_FRENKEL.current(x, xp=torch, **first), lines) - x
        x = x + 0.2 * step
        if float(step.abs().max()) < 1e-15:
            break
    return x.movedim(0, 1)


def test_held_tiles_are_the_same_tiles():
    g, v, lines = 1e-4 * draw(2, 3, 6, 5), draw(2, 3, 4, 6, seed=1), LINES[1]
    held = LinearTiles(g, lines)
    torch.testing.assert_close(held.currents(v), tile_currents(v, g, lines), rtol=1e-11, atol=0)
    for found, expected in zip(held.power(v), tile_power(v, g, lines), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)
    p, lines = devices(2, 3, 6, 5), Lines(100, 200, 30, 4)
    tiles = NonlinearTiles(p, POOLE_FRENKEL, lines, torch.full((1, 1), 0.3, dtype=torch.float64), 1e-13)
    for voltage in (v, 0.1 * v, -v):
        expected, _ = tile_currents_nonlinear(voltage, p, POOLE_FRENKEL, lines, 1e-13)
        torch.testing.assert_close(tiles.currents(voltage)[0], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(tiles.evaluate(v)[0], tiles.currents(v)[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("at_a_time", [1, 2**20])
def test_any_number_of_inputs_is_solved_in_parts(monkeypatch, at_a_time):
    """Without gradients the devices' voltages are not kept; mapped inputs, mapped chips and neither give the same."""
    monkeypatch.setattr(nonlinear_lines, "_AT_A_TIME", at_a_time)
    monkeypatch.setattr(nonlinear_lines, "_LEAST_INPUTS", 2)
    monkeypatch.setattr(line_currents, "_AT_A_TIME", at_a_time)
    p, v, lines = devices(3, 2, 6, 5), 0.5 * draw(3, 2, 5, 6, seed=1), Lines(100, 200, 30, 4)
    expected, _ = tile_currents_nonlinear(v, {**p, "c": p["c"].requires_grad_()}, POOLE_FRENKEL, lines, 1e-13)
    c = p["c"].detach()

    def run(v, c, gamma):
        held = NonlinearTiles({"c": c, "gamma": gamma}, POOLE_FRENKEL, lines, v, 1e-13)
        out, power, convergence = held.evaluate(v)
        again, _ = tile_currents_nonlinear(v, {"c": c, "gamma": gamma}, POOLE_FRENKEL, lines, 1e-13)
        return out, again, power.drawn, power.devices, convergence.residual

    with torch.no_grad():
        together = run(v, c, p["gamma"])
        chips = vmap(run)(v, c, p["gamma"])
        inputs = vmap(lambda v: run(v, c[0], p["gamma"][0]))(v)
    for found in (together, chips):
        torch.testing.assert_close(found[0], expected.detach(), rtol=1e-9, atol=0)
        torch.testing.assert_close(found[1], expected.detach(), rtol=1e-9, atol=0)
        torch.testing.assert_close(found[2], together[2], rtol=1e-9, atol=0)
        torch.testing.assert_close(found[3], together[3], rtol=1e-9, atol=0)
        assert found[4].shape == (3, 2, 5)
        assert float(found[4].max()) <= 1e-13
    for k in range(3):
        for one, other in zip(run(v[k], c[0], p["gamma"][0])[:4], inputs, strict=False):
            torch.testing.assert_close(one, other[k], rtol=1e-9, atol=0)
    g = c * 1.0
    torch.testing.assert_close(LinearTiles(g, lines).power(v), tile_power(v, g, lines), rtol=1e-10, atol=0)


def test_single_precision_is_kept_and_close():
    g, v, lines = 1e-4 * draw(32, 16), draw(4, 32, seed=1), Lines(0.35, 0.32)
    found = tile_currents(v.float(), g.float(), lines)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), tile_currents(v, g, lines), rtol=1e-5, atol=0)
    p = devices(32, 16)
    found, convergence = tile_currents_nonlinear(
        v.float(), {k: x.float() for k, x in p.items()}, POOLE_FRENKEL, lines, 1e-12
    )
    assert found.dtype == torch.float32
    assert float(convergence.residual.max()) < 1e-6  # what single precision allows, whatever was asked for
    torch.testing.assert_close(
        found.double(), tile_currents_nonlinear(v, p, POOLE_FRENKEL, lines)[0], rtol=1e-5, atol=0
    )


def test_absent_devices_and_silent_inputs_are_allowed():
    """Rows that fill up a tile have no devices: the rest does not change; inputs of zero give zero, with gradients."""
    p, v, lines = devices(4, 3), 0.5 * draw(2, 4, seed=1), Lines(0.0, 50.0, 20.0, 5.0)
    more = {name: torch.cat([torch.zeros(3, 3, dtype=torch.float64), value]) for name, value in p.items()}
    filled = torch.cat([draw(2, 3), v], dim=1)
    expected, _ = tile_currents_nonlinear(v, p, POOLE_FRENKEL, lines, 1e-13)
    found, _ = tile_currents_nonlinear(filled, more, POOLE_FRENKEL, lines, 1e-13)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        tile_currents(filled, more["c"], lines), tile_currents(v, p["c"], lines), rtol=1e-12, atol=0
    )
    c = p["c"].clone().requires_grad_()
    out, convergence = tile_currents_nonlinear(torch.zeros_like(v), {**p, "c": c}, POOLE_FRENKEL, lines)
    out.sum().backward()
    assert float(out.detach().abs().max()) == 0
    assert float(convergence.residual.max()) == 0
    assert c.grad is not None
    assert bool(torch.isfinite(c.grad).all())


def test_what_does_not_fit_is_refused():
    p, v = devices(4, 3), draw(2, 4)
    with pytest.raises(OptionError, match="4 word lines was given 5 voltages"):
        tile_currents(draw(2, 5), p["c"], LINES[0])
    with pytest.raises(OptionError, match="parameters c, gamma; c were given"):
        tile_currents_nonlinear(v, {"c": p["c"]}, POOLE_FRENKEL, LINES[0])
    with pytest.raises(OptionError, match="do not fit together"):
        tile_currents(draw(2, 2, 4), 1e-4 * draw(3, 4, 3), LINES[0])
