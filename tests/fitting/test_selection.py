"""Choice of the conduction law: the true law is found, practical differences decide, and nothing is hidden."""

import json

import numpy as np
import pytest
import xarray as xr

import calib
from calib.characteristics import selection as presentation
from calib.device_model import check
from calib.errors import FitError
from calib.fitting import curves as c
from calib.fitting import law_comparison as lc
from calib.fitting import selection
from calib.fitting.doubts import say_doubts
from calib.iv_models import iv_model
from tests.synthetic import iv_node, measurement

OHMIC, PF, SINH, POLYNOMIAL = (iv_model(n) for n in ("ohmic", "poole-frenkel", "hyperbolic-sine", "polynomial"))
FEW = (OHMIC, PF, SINH, POLYNOMIAL)
VOLTAGE = np.round(np.arange(0.02, 1.0001, 0.02), 6)


def population(
    shape: np.ndarray, devices: int = 24, cycles: int = 2, noise: float = 0.01, seed: int = 0, state: str = "lrs",
    voltage: np.ndarray = VOLTAGE,
) -> c.Curves:  # fmt: skip
    """Return curves I = V / R shape(V), R lognormal, with relative noise."""
    generator = np.random.default_rng(seed)
    n = devices * cycles
    r = 1e4 * np.exp(0.4 * np.repeat(generator.standard_normal(devices), cycles) + 0.1 * generator.standard_normal(n))
    clean = voltage / r[:, None] * shape
    return c.Curves(
        state=state, device=np.repeat([f"d{k:03d}" for k in range(devices)], cycles),
        cycle=np.tile(np.arange(cycles), devices),
        voltage=np.tile(voltage, (n, 1)), current=clean * (1 + noise * generator.standard_normal(clean.shape)),
        floor=np.zeros(n), has_offset=False, n_excluded={},
    )  # fmt: skip


def choose(parts: dict[str, c.Curves] | c.Curves, **options) -> tuple[selection.Selection, list[str]]:
    parts = {parts.state: parts} if isinstance(parts, c.Curves) else parts
    warnings: list[str] = []
    return selection.choose(parts, warnings=warnings, **options), warnings


def node_of(found: selection.Selection) -> xr.Dataset:
    assert found.node is not None
    return found.node


SHAPES = {
    "ohmic": np.ones_like(VOLTAGE),
    "poole-frenkel": np.exp(1.5 * np.sqrt(VOLTAGE)),
    "hyperbolic-sine": np.sinh(VOLTAGE / 0.3) / (VOLTAGE / 0.3),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_true_law_is_taken_among_all(name: str) -> None:
    """48 curves of 50 points with 1 % noise, in the whole range; the error at other devices is the noise's."""
    found, _ = choose(population(SHAPES[name]))
    node = node_of(found)
    assert found.law.name == name
    assert found.v_max == {"lrs": 1.0}
    taken = node.sel(law=name, state="lrs")
    assert float(node["noise"][0]) == pytest.approx(0.01, rel=0.1)
    assert float(taken["residual"]) == pytest.approx(0.01, rel=0.1)
    assert float(taken["error_between"]) == pytest.approx(0.01, rel=0.15)
    assert abs(float(taken["autocorrelation"])) < 0.15
    assert float(taken["misfit"]) < 0.003
    if name == "ohmic":
        return
    wrong = node.sel(law="power-law", state="lrs")
    assert float(wrong["error_between"]) > 3 * float(taken["error_between"])
    assert float(wrong["autocorrelation"]) > 0.5
    assert float(wrong["runs"]) > 0.9


@pytest.mark.parametrize(("bend", "noise", "law"), [(0.04, 0.005, "ohmic"), (0.3, 0.005, "bent"), (0.2, 0.1, "ohmic")])
def test_a_difference_below_the_threshold_or_the_noise_is_none(bend: float, noise: float, law: str) -> None:
    """The best line through V (1 + bend V^2) is off by some 0.2 bend: below 3 %, above it, below the noise of 10 %."""
    found, warnings = choose(population(1 + bend * VOLTAGE**2, noise=noise), laws=FEW)
    node = node_of(found)
    assert (found.law.name == "ohmic") == (law == "ohmic")
    expected = (1 + bend) / (1 + bend * lc.LOWEST_VOLTAGE**2) - 1
    value, (low, high) = float(node["curvature"][0, 0]), node["curvature_bound"].values[0, 0]
    assert low <= value <= high
    assert value == pytest.approx(expected, rel=0.35 if noise < 0.05 else 0.7)  # the laws bend each in its own way
    if bend == 0.04:
        text = "\n".join(warnings)
        assert "ohmic was taken:" in text
        assert "the curves bend, and ohmic leaves that out" in text
        assert low > 0


def test_no_curvature_is_found_where_there_is_none() -> None:
    found, warnings = choose(population(np.ones_like(VOLTAGE), devices=40), laws=FEW)
    node = node_of(found)
    assert found.law is OHMIC
    low, high = node["curvature_bound"].values[0, 0]
    assert low < 0.005
    assert high > -0.005
    assert not [w for w in warnings if "bend" in w and "all curves" in w]


def test_the_law_serves_all_states_and_each_has_its_window() -> None:
    """The low-resistance state is straight; the other follows Poole-Frenkel up to 0.6 V and something else beyond."""
    bent = SHAPES["poole-frenkel"] * np.exp(6 * np.maximum(VOLTAGE - 0.6, 0.0))
    parts = {"lrs": population(np.ones_like(VOLTAGE)), "hrs": population(bent, state="hrs", seed=1)}
    found, _ = choose(parts, laws=(OHMIC, PF))
    assert found.law is PF
    assert found.v_max["lrs"] == 1.0
    assert 0.6 <= found.v_max["hrs"] <= 0.8
    reach = node_of(found)["reach"].sel(law="ohmic").values
    assert reach[0] == 1.0
    assert not reach[1] > 0.1


def test_another_parameter_is_paid_with_a_longer_window() -> None:
    """Up to 0.55 V the curves are straight, and bend to twice the current at 2 V: the longer range is worth a law."""
    voltage = np.round(np.arange(0.05, 2.0001, 0.05), 6)
    found, _ = choose(population(np.sinh(voltage / 0.9) / (voltage / 0.9), voltage=voltage), laws=FEW)
    assert found.law is SINH
    assert found.v_max["lrs"] == 2.0
    fixed, _ = choose(population(np.sinh(voltage / 0.9) / (voltage / 0.9), voltage=voltage), laws=FEW, v_max=0.5)
    assert fixed.law is OHMIC
    assert fixed.v_max["lrs"] == 0.5
    assert node_of(fixed).attrs["window"] == "as asked for"


def test_an_empirical_law_does_not_displace_a_physical_one_within_the_threshold() -> None:
    found, _ = choose(population(SHAPES["hyperbolic-sine"], noise=0.002), laws=(OHMIC, SINH, POLYNOMIAL))
    assert found.law is SINH
    assert [selection.is_empirical(law) for law in (SINH, POLYNOMIAL, iv_model("power-law"))] == [False, True, True]


def test_a_law_that_most_curves_do_not_determine_is_not_eligible() -> None:
    """On straight curves the hyperbolic sine's voltage goes to infinity; the table says so."""
    node = node_of(choose(population(np.ones_like(VOLTAGE)), laws=(OHMIC, SINH), v_max=1.0)[0])
    reason = str(node["reason"].sel(law="hyperbolic-sine").values)
    assert int(node["eligible"].sel(law="hyperbolic-sine")) == (not reason)
    assert str(node["reason"].sel(law="ohmic").values) == ""
    assert node.attrs["iv_model"] == "ohmic"


def test_an_asymmetric_law_is_not_taken_for_the_negative_branch() -> None:
    laws = (OHMIC, PF, iv_model("diode"))
    node = node_of(choose(population(SHAPES["poole-frenkel"]), laws=laws, reference_voltage=-0.1)[0])
    assert "its two polarities differ" in str(node["reason"].sel(law="diode").values)


def test_the_choice_is_reproducible_and_does_not_depend_on_the_order() -> None:
    part = population(SHAPES["poole-frenkel"], devices=20)
    first, again = (node_of(choose(part, laws=FEW)[0]) for _ in range(2))
    xr.testing.assert_identical(first, again)
    order = np.random.default_rng(1).permutation(len(part))
    mixed = node_of(choose(c.some(part, order), laws=FEW)[0])
    np.testing.assert_allclose(mixed["aicc"], first["aicc"], rtol=1e-6)
    np.testing.assert_allclose(mixed["difference"], first["difference"], rtol=1e-4, atol=1e-9)


def test_few_points_a_curve() -> None:
    """Five points at steps of 0.1 V: laws of three parameters have nothing to say, and nothing fails."""
    voltage = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    found, _ = choose(population(np.exp(3 * np.sqrt(voltage)), voltage=voltage))
    assert found.law is PF
    assert found.v_max == {"lrs": 0.5}


def test_one_curve() -> None:
    found, _ = choose(population(SHAPES["poole-frenkel"], devices=1, cycles=1), laws=FEW)
    assert found.law is PF
    assert np.isnan(node_of(found)["error_curves"].sel(law="poole-frenkel")).all()


def test_too_few_voltages() -> None:
    voltage = np.array([0.1, 0.2])
    with pytest.raises(FitError, match="have 2 usable voltages; ohmic needs 3; measure more points"):
        choose(population(np.ones(2), voltage=voltage))


def test_a_law_that_was_asked_for_is_not_compared() -> None:
    found, warnings = choose(population(SHAPES["poole-frenkel"]), iv_model_name="ohmic")
    assert found.law is OHMIC
    assert found.node is None
    assert "ohmic misses the curves by" in warnings[0]


def test_an_offset_is_no_curvature() -> None:
    """A constant current that was not wholly removed bends I / V, but not the law: it is fitted beside it."""
    part = population(np.ones_like(VOLTAGE), devices=30, cycles=1, noise=0.005)
    current = part.current + 0.02 * np.median(part.current[:, -1])
    part = c.Curves(**{**vars(part), "current": current, "has_offset": True, "floor": np.full(len(part), 1e-8)})
    found, _ = choose(part, laws=FEW)
    assert found.law is OHMIC
    low, high = node_of(found)["curvature_bound"].values[0, 0]
    assert low < 0.01
    assert high < 0.03


# The parts


@pytest.mark.parametrize("noise", [0.003, 0.03])
@pytest.mark.parametrize("name", SHAPES)
def test_the_noise_is_found_without_a_law(name: str, noise: float) -> None:
    """2000 contrasts give a median absolute deviation to some 3 %; their neighbours overlap, so to 10 % here."""
    assert c.noise_of(population(SHAPES[name], noise=noise), 1.0) == pytest.approx(noise, rel=0.1)


def test_the_noise_of_too_few_points_is_not_known() -> None:
    part = population(np.ones(2), devices=3, cycles=1, voltage=np.array([0.1, 0.2]))
    assert np.isnan(c.noise_of(part, 1.0))


def test_aicc_of_one_curve() -> None:
    part = population(SHAPES["poole-frenkel"], devices=1, cycles=1)
    points = lc.points_of(part, 1.0, 0.01)
    fits = lc.fit_law(PF, points)
    values = {name: fits.fit.values[:, k, None] for k, name in enumerate(fits.fit.names)}
    chi = np.sum(((PF.current(part.voltage, xp=np, **values) - part.current) / points.sigma) ** 2)
    n, k = 50, 3
    assert fits.aicc[0] == pytest.approx(n * np.log(chi / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1), rel=1e-9)


def test_runs_of_random_signs() -> None:
    """Of 400 curves with independent noise 5 % have fewer runs than 95 % of such curves, within 4 binomial errors.

    The fit of two parameters makes runs a little more frequent.
    """
    points = lc.points_of(population(SHAPES["poole-frenkel"], devices=400, cycles=1), 1.0, 0.01)
    z = lc.runs(lc.fit_law(PF, points), points)
    assert 0.0 < np.mean(z < -1.645) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(lc.runs(lc.fit_law(OHMIC, points), points) < -1.645) == 1.0


def test_a_left_out_curve_is_predicted_from_its_resistance() -> None:
    """Without spread of the shape the error is that of R and of the point; spread of the exponent adds to it."""
    same = lc.points_of(population(SHAPES["poole-frenkel"], devices=30), 1.0, 0.01)
    error = np.median(lc.held_out_curves(lc.fit_law(PF, same), same, 0.1))
    assert error == pytest.approx(np.hypot(0.01, 0.01), rel=0.35)
    ohmic = np.median(lc.held_out_curves(lc.fit_law(OHMIC, same), same, 0.1))
    assert ohmic > 0.3


def test_intervals_count_devices_not_curves() -> None:
    """20 devices of 30 equal curves: the median is known as of 20 values, half-width about 2 x 1.25 / sqrt(20)."""
    generator = np.random.default_rng(0)
    values = np.repeat(generator.standard_normal(20), 30)
    device = np.repeat(np.arange(20).astype(str), 30)
    _, low, high = lc.median_interval(values, device, generator)
    assert 0.5 < high - low < 2.2
    _, low_wrong, high_wrong = lc.median_interval(values, np.arange(600).astype(str), generator)
    assert high_wrong - low_wrong < 0.7 * (high - low)


# Doubts in words


class _Doubtful:
    """The fits of ten curves, three of them at a bound, one flagged."""

    def __init__(self) -> None:
        part = population(SHAPES["poole-frenkel"], devices=10, cycles=1)
        fits = c.fit_curves(PF, part, 1.0, 0.1)
        self.__dict__ = dict(vars(fits))
        self.ok = fits.ok
        at_bound = np.zeros((10, 2), dtype=bool)
        at_bound[:3, 1] = True
        flags = np.zeros(10, dtype=np.uint8)
        flags[4], flags[:3] = 8, 1
        self.fit = type("Fit", (), {**vars(fits.fit), "at_bound": at_bound, "flags": flags})


def test_doubts_are_said_with_numbers() -> None:
    warnings: list[str] = []
    say_doubts(PF, {"lrs": _Doubtful()}, 0.1, warnings)  # type: ignore[dict-item]
    assert any("state 'lrs': gamma is at its bound on 3 of 10 curves" in w for w in warnings)
    assert any("state 'lrs': 1 of 10 curves: the residuals have heavier tails" in w for w in warnings)
    assert len(warnings) == 2


def test_a_reference_voltage_outside_the_data_is_said() -> None:
    warnings: list[str] = []
    fits = c.fit_curves(PF, population(SHAPES["poole-frenkel"]), 0.5, 0.8)
    say_doubts(PF, {"lrs": fits}, 0.8, warnings)
    assert warnings == [
        "state 'lrs': the reference voltage 0.8 V lies outside the fitted voltages, 0.02 to 0.5 V, so R is "
        "extrapolated with the law; choose one inside (--reference-voltage)"
    ]


def test_nothing_is_said_of_good_fits() -> None:
    warnings: list[str] = []
    fits = c.fit_curves(PF, population(SHAPES["poole-frenkel"]), 0.5, 0.1)
    say_doubts(PF, {"lrs": fits}, 0.1, warnings)
    assert warnings == []


# In the model


@pytest.fixture(scope="module")
def model() -> xr.DataTree:
    return calib.fit(measurement(iv=iv_node(devices=8, cycles=1)))


def test_the_model_holds_the_tables(model: xr.DataTree, tmp_path) -> None:
    check(model)
    node = model["selection"].to_dataset()
    assert node.attrs["iv_model"] == model["iv"].attrs["iv_model"] == "poole-frenkel"
    assert set(node["law"].values) >= {"ohmic", "poole-frenkel", "hyperbolic-sine", "polynomial"}
    calib.save_device(model, tmp_path / "m.nc")
    xr.testing.assert_identical(calib.open_device(tmp_path / "m.nc")["selection"].to_dataset(), node)


def test_the_tables_are_shown(model: xr.DataTree) -> None:
    node = model["selection"].to_dataset()
    found = presentation.sections(node, model)
    assert [s.title for s in found][:2] == [
        "Choice of the law: low-resistance state (lrs)", "Choice of the law: high-resistance state (hrs)",
    ]  # fmt: skip
    assert all(len(row) == len(s.columns) for s in found for row in s.rows)
    assert found[0].rows[0][0] == "poole-frenkel"
    assert "taken" in [row[-1] for s in found for row in s.rows]
    estimates = presentation.estimates(node, model)
    assert len({(e.state, e.quantity) for e in estimates}) == len(estimates)
    assert presentation.key_numbers(node, model) == []
    ((key, _, drawing),) = presentation.figures(node, model)
    assert key == "selection"
    assert len(drawing.axes) == 2
    xr.testing.assert_identical(presentation.resample(node, np.random.default_rng(0)), node)


def test_the_curvature_that_ohms_law_leaves_out_is_a_key_number() -> None:
    straight = measurement(iv=iv_node(devices=6, cycles=1, ohmic=True))
    model = calib.fit(straight)
    node = model["selection"].to_dataset()
    assert node.attrs["iv_model"] == "ohmic"
    assert [key for key, _, _ in presentation.key_numbers(node, model)] in ([], ["curvature left out"])


def test_radway_is_ohmic_and_its_curvature_is_reported(measurements) -> None:
    """Facts of the data: an offset of -2 uA, and a curvature of some 7 %, which is below the practical threshold."""
    path = measurements / "radway-1t1r" / "read_multivolt.tsv"
    raw = calib.read(path, columns="device=0,current=1,voltage=2")
    iv = raw["iv"].to_dataset()
    part = c.select(
        iv.assign_coords(state=("sweep", ["all"] * iv.sizes["sweep"])).isel(sweep=slice(0, None, 16)), "all", "positive"
    )
    found, warnings = choose(part)
    node = node_of(found)
    assert found.law is OHMIC
    low, high = node["curvature_bound"].values[0, 0]
    assert 0.03 < low < float(node["curvature"][0, 0]) < high < 0.2
    assert "the curves bend, and ohmic leaves that out" in "\n".join(warnings)
    assert json.dumps(node.attrs["statement"])
