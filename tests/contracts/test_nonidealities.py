"""The contract of nonidealities over every one that calib finds, and over every device model that there is."""

import pytest
import torch
import xarray as xr

from calib import data_folder, device_model, nonidealities
from calib.errors import OptionError
from calib.nonidealities.base import Conditions, ConductanceNonideality, ReadNonideality
from tests.contracts.nonideality_contract import LATER, NonidealityContract, generator
from tests.device_trees import full_device, part_of_device
from tests.nonidealities.nodes import all_effects, retention_node, writes_node
from tests.simple_devices import everything, programming_node, range_only

NAMES = nonidealities.names()
EXPECTED = {
    "ddas04-rram": ["lognormal", "stuck", "iv"],
    "elgeresy-tio2": ["retention", "read-noise"],
    "gong-reram": [],
    "levy-relaxation": ["quantise", "retention"],
    "levy-write-verify": ["write-verify", "stuck"],
    "radway-1t1r-cycles": ["lognormal", "stuck"],
    "radway-1t1r-multivolt": ["iv"],
    "siox-high-resistance": ["iv"],
    "siox-low-resistance": ["iv"],
    "synthetic-crossbar": ["lognormal", "stuck"],
    "synthetic-oxide": ["lognormal", "stuck", "iv"],
    "ta-hfo2": ["stuck"],
    "wang-yflash": [],
    "xiao2025-multilevel": ["quantise", "lognormal", "stuck", "read-noise", "iv"],
}


@pytest.mark.parametrize("member", [nonidealities.nonideality(name) for name in NAMES], ids=NAMES, scope="class")
class TestNonidealities(NonidealityContract):
    """Every member of the family."""

    def model(self) -> xr.DataTree:
        return all_effects()

    @pytest.fixture
    def tree(self) -> xr.DataTree:
        return all_effects()

    @pytest.fixture
    def bare(self) -> xr.DataTree:
        return range_only()


def test_members_are_found_by_file() -> None:
    assert set(NAMES) >= {
        "disturb", "empirical", "iv", "lognormal", "quantise", "read-noise", "retention", "stuck", "write-verify"
    }  # fmt: skip


def test_an_unknown_nonideality_is_refused() -> None:
    with pytest.raises(OptionError, match="no 'retention-2' in nonidealities; found: disturb, empirical, iv, lognorma"):
        nonidealities.nonideality("retention-2")


def test_one_member_a_stage() -> None:
    found = nonidealities.from_device(everything())
    assert [member.name for member in found] == ["lognormal", "stuck", "iv"]
    with pytest.raises(OptionError, match="'stuck' and 'stuck' both act at the stage 'stuck'"):
        nonidealities.order([*found, found[1]])


def test_of_several_members_of_a_stage_one_is_taken() -> None:
    tree = all_effects()

    def programming(*prefer: str) -> str:
        return next(m.name for m in nonidealities.from_device(tree, LATER, prefer) if m.stage == "program")

    assert programming() == "write-verify"
    assert programming("lognormal") == "lognormal"
    assert programming("empirical") == "empirical"
    with pytest.raises(OptionError, match="'empirical' and 'lognormal' both act"):
        programming("empirical", "lognormal")
    with pytest.raises(OptionError, match="the device model has no data for 'empirical'; leave it out"):
        nonidealities.from_device(range_only(programming=programming_node()), prefer=["empirical"])


@pytest.mark.parametrize("name", data_folder.bundled_model_names())
def test_bundled_models_give_their_nonidealities(name: str) -> None:
    """Every member works on conductances over the whole range of the model, as programmed and after a year."""
    tree = device_model.open_device(name)
    for conditions in (Conditions(), Conditions(time=3e7, reads=10**6, compensate=True)):
        found = nonidealities.from_device(tree, conditions)
        assert [member.name for member in found] == EXPECTED.get(name, [member.name for member in found])
        if "conductance" in tree.children:
            _act(tree, found)


@pytest.mark.parametrize("tree", [full_device(), part_of_device("conductance", "programming")], ids=["full", "part"])
def test_fitted_models_give_their_nonidealities(tree: xr.DataTree) -> None:
    found = nonidealities.from_device(tree, LATER)
    assert "lognormal" in [member.name for member in found]
    _act(tree, found)


def _act(tree: xr.DataTree, found: tuple) -> None:
    node = tree["conductance"].to_dataset()
    g = torch.linspace(float(node["g_off"]), float(node["g_on"]), 600, dtype=torch.float64).view(2, 30, 10)
    for member in found:
        if isinstance(member, ConductanceNonideality):
            g = member.conductance(g, generator(1), generator(2))
            assert bool((torch.isfinite(g) & (g > 0)).all()), member.name
        elif isinstance(member, ReadNonideality):
            sigma = member.relative_spread(g, generator(3))
            assert bool((torch.isfinite(sigma) & (sigma > 0) & (sigma < 1)).all())


def test_models_of_the_first_release_draw_what_they_drew() -> None:
    """A spread and stuck devices without further knowledge: the numbers that calib 0.1's members drew."""
    from calib.nonidealities.base import Z_MAX

    g = torch.linspace(5e-7, 2.5e-6, 24, dtype=torch.float64).view(2, 4, 3)
    spread, stuck, _ = nonidealities.from_device(everything())
    assert isinstance(spread, ConductanceNonideality)
    assert isinstance(stuck, ConductanceNonideality)
    r = 1 / g
    sigma = 0.2 + 0.2 * ((r - 4e5) / 1.6e6).clamp(0.0, 1.0)
    z = torch.empty_like(g).normal_(generator=generator(5)).clamp_(-Z_MAX, Z_MAX)
    torch.testing.assert_close(
        spread.conductance(g, generator(5)), g * torch.exp(sigma * (0.5 * sigma - z)), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(spread.conductance(g, generator(5), generator(6)), spread.conductance(g, generator(5)))
    stream = generator(8)
    where = torch.empty_like(g).uniform_(generator=stream).flatten() < 0.1
    values = torch.tensor([8e-7, 2e-6], dtype=g.dtype)[torch.randint(2, (int(where.sum()),), generator=stream)]
    values = (values + 3e-7 * torch.empty_like(values).normal_(generator=stream)).abs()
    expected = g.flatten().index_put((torch.nonzero(where)[:, 0],), values).view(g.shape)
    assert torch.equal(stuck.conductance(g, generator(8)), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"time": -1.0}, "time"), ({"reads": -1}, "readings"), ({"temperature": 0.0}, "temperature")],
)
def test_impossible_conditions_are_refused(values: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Conditions(**values)


def test_all_effects_together_are_differentiable() -> None:
    """The chain of all stages that change conductances, with write and verify and with relaxation."""
    tree = range_only(writes=writes_node(), retention=retention_node(relaxation=True))
    chain = [m for m in nonidealities.from_device(tree, LATER) if isinstance(m, ConductanceNonideality)]
    chain += [m for m in nonidealities.from_device(all_effects(), LATER) if m.stage in ("stuck", "disturb")]

    def f(g: torch.Tensor) -> torch.Tensor:
        for member in nonidealities.order(chain):
            g = member.conductance(g * 1e-6, generator()) * 1e6  # type: ignore[attr-defined]
        return g

    g = torch.linspace(0.55, 2.4, 24, dtype=torch.float64).view(2, 4, 3).requires_grad_(True)
    assert torch.autograd.gradcheck(f, g)
