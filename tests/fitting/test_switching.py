"""Switching voltages, their laws, endurance, yield and maps: known truth, limits, and real files."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import calib
from calib import device_model, maps, measurement
from calib.fitting import endurance
from calib.fitting import switching_distribution as laws
from calib.fitting.cycle_table import CycleTable
from calib.fitting.intervals import binomial_interval
from calib.fitting.loops import find_loops, half_way_voltage, steepest_voltage
from calib.fitting.switching import switching_node
from tests.fitting.loops_made import END, STEP, loops_node, loops_of
from tests.synthetic import iv_node, reads_node

RNG = np.random.default_rng


def one_loop(event: float, width: float) -> xr.Dataset:
    cell = np.full((1, 1), 1.0)
    return loops_node(event * cell, 0.8 * cell, 13.0 * cell, 9.0 * cell, width)


def exact(values: np.ndarray) -> laws.Events:
    return laws.Events(values, values, np.arange(len(values)), np.full(len(values), np.inf))


@pytest.mark.parametrize("event", [0.6, 1.02, 1.4])
def test_a_jump_is_found_in_its_step(event):
    found = find_loops(one_loop(event, 0.0))
    k = int(found.of("set")[0])
    assert found.rule[k] == "abrupt"
    assert found.voltage[k] - found.resolution[k] < event + 1e-9
    assert event <= found.voltage[k] + 1e-9
    assert found.steepest[k] == pytest.approx(found.abrupt[k])
    assert abs(found.half_way[k] - event) < STEP


@pytest.mark.parametrize("event", [0.6, 1.02, 1.4])
def test_gradual_switching_is_found_at_its_middle(event):
    """For ohmic states d(V) is a logistic in V: half way is its middle, the steepest per ln V slightly above it."""
    found = find_loops(one_loop(event, 0.04).drop_vars("switching_voltage"))
    k = int(found.of("set")[0])
    assert found.rule[k] == "steepest"
    assert found.half_way[k] == pytest.approx(event, abs=0.01)
    assert found.voltage[k] - STEP - 0.01 < event < found.voltage[k] + 0.01


def test_one_definition_serves_an_operation():
    """Abrupt events that disagree with the steepest steps are not mixed with them."""
    node = loops_of(10, 2, width=0.04)
    wrong = node["switching_voltage"].values.copy()
    wrong[:3] = 0.2
    found = find_loops(node.assign_coords(switching_voltage=("sweep", wrong)))
    assert set(found.rule[found.of("set")]) == {"steepest"}


def test_the_way_of_the_sweep_and_a_current_limit_do_not_matter():
    node = one_loop(1.0, 0.0)
    limited = node.assign(current=np.sign(node["current"]) * np.minimum(np.abs(node["current"]), 5e-5))
    on_top = np.abs(limited["current"].values) >= 5e-5
    limited["flag"].values[on_top] |= 1
    assert find_loops(limited).voltage[0] == pytest.approx(1.0)
    assert find_loops(limited.drop_vars("switching_voltage")).voltage[0] == pytest.approx(1.0)


def test_no_distance_no_event():
    grid = np.linspace(0.1, 1, 10)
    assert np.isnan(half_way_voltage(grid, np.zeros(10)))
    assert np.isnan(steepest_voltage(grid, np.zeros(10))[0])
    assert np.isnan(half_way_voltage(grid[:2], np.ones(2)))


def test_laws_agree_with_scipy():
    values = 1.2 * RNG(1).weibull(8, 300)
    fit = laws.fit_law(exact(values), "weibull", RNG(0))
    shape, _, scale = stats.weibull_min.fit(values, floc=0)
    assert 1 / fit.spread == pytest.approx(shape, rel=1e-4)
    assert np.exp(fit.location) == pytest.approx(scale, rel=1e-5)
    normal = laws.fit_law(exact(values), "normal", RNG(0))
    assert (normal.location, normal.spread) == pytest.approx((values.mean(), values.std()), rel=1e-6)
    assert np.sqrt(normal.covariance[0, 0]) == pytest.approx(values.std() / np.sqrt(300), rel=0.02)
    assert fit.p_value > 0.05


def test_steps_and_the_end_of_the_sweep_do_not_bias_the_laws():
    """Rounding up to steps of a standard deviation, and a sweep that ends at the 80 % quantile."""
    values = 1.2 * RNG(2).weibull(8, 4000)
    high = np.ceil(values / 0.15) * 0.15
    end = np.floor(np.quantile(values, 0.8) / 0.15) * 0.15
    beyond = high > end + 1e-9
    events = laws.Events(
        np.where(beyond, end, high - 0.15), np.where(beyond, np.inf, high), np.arange(4000), np.full(4000, end)
    )
    fit = laws.fit_law(events, "weibull", RNG(0))
    error = np.sqrt(np.diag(fit.covariance))
    assert abs(fit.location - np.log(1.2)) < 3 * error[0]
    assert abs(np.log(fit.spread) + np.log(8)) < 3 * error[1]
    assert fit.p_value > 0.01


def test_a_wrong_law_is_rejected_and_a_right_one_is_not(monkeypatch):
    monkeypatch.setattr(laws, "N_BOOTSTRAP", 99)
    values = np.exp(0.8 * RNG(3).standard_normal(400))
    assert laws.fit_law(exact(values), "normal", RNG(0)).p_value < 0.02
    rejected = [
        laws.fit_law(exact(1 + 0.1 * RNG(k).standard_normal(40)), "normal", RNG(k)).p_value < 0.1 for k in range(40)
    ]
    assert 0 <= sum(rejected) <= 10  # binomial (40, 0.1): 99 % within 0 to 9


def test_cycles_of_a_device_are_not_independent():
    rng = RNG(4)
    values = 1 + np.repeat(0.1 * rng.standard_normal(20), 30) + 0.02 * rng.standard_normal(600)
    events = laws.Events(values, values, np.repeat(np.arange(20), 30), np.full(600, np.inf))
    fit = laws.fit_law(events, "normal", RNG(0), share_d2d=0.96)
    assert np.sqrt(fit.covariance[0, 0]) == pytest.approx(0.1 / np.sqrt(20), rel=0.35)


@pytest.fixture(scope="module")
def node() -> xr.Dataset:
    found = switching_node(loops_of(40, 6), [])
    assert found is not None
    return found


def test_voltages_and_their_parts_are_recovered(node):
    for k, (mean, d2d, c2c) in enumerate(((1.0, 0.08, 0.06), (0.8, 0.05, 0.05))):
        low, high = node["normal_mean_bound"].values[k]
        assert low - 0.01 < mean < high + 0.01
        step = STEP / np.sqrt(12)  # rounding to steps adds to the spread from cycle to cycle
        assert abs(node["voltage_d2d"].values[k] - d2d) < 3 * node["voltage_d2d_stderr"].values[k]
        assert abs(node["voltage_c2c"].values[k] - np.hypot(c2c, step)) < 4 * node["voltage_c2c_stderr"].values[k]
    assert node["n_events"].values.tolist() == [240, 240]
    assert node["polarity"].values.tolist() == [1, -1]
    assert "bipolar" in node.attrs["polarity"]
    assert device_model.check(device_model.build({"switching": node}, name="x")) is None


def test_set_voltage_against_the_resistance_before():
    rng = RNG(5)
    ln_r = 13 + 0.5 * rng.standard_normal((60, 1))
    found = switching_node(loops_node(1 + 0.2 * (ln_r - 13), np.full((60, 1), 0.8), ln_r, np.full((60, 1), 9.0)), [])
    assert float(found["correlation"][0]) > 0.95
    assert np.isnan(float(found["correlation"][1]))  # the reset voltage does not vary
    assert int(found["n_correlation"][0]) == 60


def test_a_device_that_never_switched_is_no_zero_volt():
    v_set = np.full((12, 3), 1.0)
    v_set[0] = np.inf
    v_set[1, 2] = np.inf  # a device that switched before: its voltage is beyond the sweep
    said: list[str] = []
    found = switching_node(
        loops_node(v_set, np.full((12, 3), 0.8), np.full((12, 3), 13.0), np.full((12, 3), 9.0)), said
    )
    assert float(found["voltage_quantile"].min()) > 0.7
    assert int(found["n_events"][0]) == 32
    assert int(found["n_censored"][0]) == 1
    assert int(found["n_not_switched"][0]) == 1
    assert int(found["n_all_cycles"]) == 10
    assert any("counted apart" in text for text in said)


def test_events_at_the_end_of_the_sweep_are_said():
    said: list[str] = []
    node = loops_node(
        np.full((10, 2), END["set"]), np.full((10, 2), 0.8), np.full((10, 2), 13.0), np.full((10, 2), 9.0)
    )
    found = switching_node(node, said)
    assert int(found["n_at_end"][0]) == 20
    assert any("sweep further" in text for text in said)


def table(ln_r: np.ndarray, switched: np.ndarray | None = None, hrs: float = 14.0) -> CycleTable:
    devices, cycles = ln_r.shape
    switched = np.ones(ln_r.size, dtype=bool) if switched is None else switched.ravel()
    values = {"ln_r_lrs": ln_r.ravel(), "ln_r_hrs": np.full(ln_r.size, hrs)}
    device = np.repeat([f"d{k:02d}" for k in range(devices)], cycles)
    none = {name: np.zeros(ln_r.size, dtype=bool) for name in values}
    return CycleTable(device, np.tile(np.arange(cycles), devices), values, none, switched, 0.1, {})


def test_the_slope_of_endurance_and_its_interval():
    decades = np.log10(np.arange(100) + 1.0)
    covered = []
    for seed in range(40):
        rng = RNG(seed)
        ln_r = 9 + rng.standard_normal((8, 1)) + 0.2 * decades + 0.3 * rng.standard_normal((8, 100))
        part = table(ln_r)
        low, high = endurance.trend(part.values["ln_r_lrs"], part.device, part.cycle).interval
        covered.append(low < 0.2 < high)
    assert 33 <= sum(covered) <= 40  # binomial (40, 0.95)


def test_memory_widens_the_interval_of_a_single_device():
    rng = RNG(0)
    noise = np.zeros(400)
    for k in range(1, 400):
        noise[k] = 0.8 * noise[k - 1] + rng.standard_normal()
    cycle, device = np.arange(400), np.full(400, "a")
    with_memory = endurance.trend(noise, device, cycle)
    shuffled = endurance.trend(rng.permutation(noise), device, cycle)
    assert with_memory.stderr > 2 * shuffled.stderr


def test_when_the_window_closes():
    """ln(R_hrs / R_lrs) = 3 - log10(cycle + 1): ln 2 is reached at decade 3 - ln 2."""
    part = table(11 + np.tile(np.log10(np.arange(1000) + 1.0), (6, 1)) + 1e-6 * RNG(0).standard_normal((6, 1000)))
    line, _, smallest, closes = endurance.window_closure(part, 2.0)
    assert line.slope == pytest.approx(-1, abs=1e-4)
    assert closes == pytest.approx(10 ** (3 - np.log(2)), rel=1e-3)
    assert smallest == pytest.approx(0, abs=1e-3)
    assert endurance.window_closure(table(np.full((3, 5), 11.0)), 2.0)[3] == np.inf


def test_devices_that_stop_switching():
    switched = np.ones((4, 10), dtype=bool)
    switched[1, 6:] = False
    switched[2, 8:] = False  # two cycles are not enough to say so
    switched[3] = False
    part = table(np.full((4, 10), 9.0), switched)
    failed, last = endurance.failures(part)
    assert failed.tolist() == [-1, 6, -1, -1]
    assert last.tolist() == [9] * 4
    assert endurance.counts(part, None) == {"n_devices": 4, "n_switched": 3, "n_all_cycles": 1, "n_never": 1}


def cycled_reads(seed: int = 0, devices: int = 30, cycles: int = 5) -> xr.Dataset:
    rng = RNG(seed)
    ln_r = {
        "hrs": 13 + 0.3 * rng.standard_normal((devices, cycles)),
        "lrs": 9 + 0.1 * rng.standard_normal((devices, cycles)),
    }
    ln_r["hrs"][0] = ln_r["lrs"][0]  # never switches
    g = np.exp(-np.concatenate([ln_r["hrs"].ravel(), ln_r["lrs"].ravel()]))
    device = np.tile(np.repeat([f"d{k:02d}" for k in range(devices)], cycles), 2)
    state = np.repeat(["hrs", "lrs"], devices * cycles)
    return reads_node(g[:, None], device=device, state=state, cycle=np.tile(np.arange(cycles), 2 * devices))


def test_endurance_and_yield_from_reads():
    found = switching_node(None, [], reads=cycled_reads())
    assert "operation" not in found
    assert (int(found["n_switched"]), int(found["n_never"])) == (29, 1)
    assert found["yield_switched_bound"].values == pytest.approx(binomial_interval(29, 30))
    assert found["trend"].values == pytest.approx([0, 0], abs=0.3)


@pytest.mark.parametrize("reads", [None, reads_node(np.full((4, 1), 1e-5))])
def test_what_is_not_there_is_said(reads):
    said: list[str] = []
    only_read = iv_node(devices=2, cycles=1)
    only_read["operation"][:] = "read"
    assert switching_node(only_read, said, reads=reads) is None
    assert said == [text for text in said if text.startswith("switching: not found, because")]
    assert len(said) == 1


def test_rows_that_differ_are_found_and_chance_is_not():
    rng = RNG(6)
    x = rng.standard_normal((16, 24))
    x[3, 4] = x[7, 7] = np.nan
    rows, columns = np.indices(x.shape)
    chance = maps.place_effects(maps.grid(rows.ravel(), columns.ravel(), x.ravel()), RNG(0))
    assert min(chance.p_row, chance.p_column) > 0.01
    assert "do not differ more than chance" in chance.sentence("ln R")
    shifted = x + 0.7 * rng.standard_normal((16, 1))
    found = maps.place_effects(maps.grid(rows.ravel(), columns.ravel(), shifted.ravel()), RNG(0))
    assert found.p_row < 0.005
    assert found.p_column > 0.01
    assert found.sigma_row == pytest.approx(0.7, rel=0.5)
    assert found.sigma_rest == pytest.approx(1.0, rel=0.1)
    assert "rows differ more than chance" in found.sentence("ln R")


def test_p_values_of_places_are_uniform_under_chance(monkeypatch):
    monkeypatch.setattr(maps, "N_PERMUTATIONS", 99)
    p = [maps.place_effects(xr.DataArray(RNG(k).standard_normal((6, 8)), dims=("row", "column"), coords={
        "row": np.arange(6), "column": np.arange(8)}), RNG(k)).p_row for k in range(60)]  # fmt: skip
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_median_polish_by_hand():
    """An additive table is taken apart exactly, one odd cell beside it."""
    table = np.array([1.0, 2, 5, 9])[:, None] + np.array([0.0, 10, 30])
    table[0, 0] = 1000.0
    overall, row, column = maps.median_polish(table)
    assert row - row[1] == pytest.approx([-1, 0, 3, 7])
    assert column - column[1] == pytest.approx([-10, 0, 20])
    assert overall + row[3] + column[2] == pytest.approx(39)


def test_maps_of_a_measurement_and_of_devices():
    row, column = np.divmod(np.arange(48), 8)
    said: list[str] = []
    found = switching_node(loops_of(48, 2, row=row, column=column), said)
    assert set(found["place_quantity"].values) >= {"v_set", "ln_r_hrs"}
    assert found["device_row"].values.tolist() == row.tolist()
    reads = reads_node(np.full((48, 1), 1e-5)).assign_coords(
        row=("trace", row, {"units": "1", "long_name": "row"}),
        column=("trace", column, {"units": "1", "long_name": "column"}),
    )
    (table,) = maps.of_measurement(xr.DataTree.from_dict({"/reads": reads})).values()
    assert table.shape == (6, 8)
    assert table.values == pytest.approx(1e5)
    assert maps.places_from_address(["5", "16"], 8)[0].tolist() == [0, 2]
    assert maps.grid(np.array([-1]), np.array([0]), np.array([1.0])).size == 0


def test_every_real_set_event_is_found(measurements):
    """ddas04: 98 of 100 devices open their loop; 59 of the events are jumps, and the others agree with them."""
    iv = calib.read(measurements / "ddas04-rram" / "100devices.xlsx")["iv"].to_dataset()
    found = switching_node(iv.isel(sweep=np.flatnonzero(iv["population"].values == "devices")), [])
    assert found["n_events"].values.tolist() == [98, 94]
    assert found["n_not_switched"].values.tolist() == [2, 6]
    assert found["voltage_quantile"].values[0] == pytest.approx([0.985, 1.2, 2.4], abs=0.05)
    both = np.isfinite(found["event_voltage_abrupt"].values) & (found["event_operation"].values == "set")
    assert both.sum() == 59
    difference = found["event_voltage_abrupt"].values - found["event_voltage_steepest"].values
    assert np.median(np.abs(difference[both])) < 1e-9
    cycled = switching_node(iv.isel(sweep=np.flatnonzero(iv["population"].values == "100cycles")), [])
    assert cycled["n_events"].values.tolist() == [100, 100]
    assert cycled["n_at_end"].values.tolist() == [0, 63]
    assert cycled["trend_bound"].values[1, 1] < 0  # R of the high state falls


def test_gradual_switching_of_xiao_is_found_in_every_cycle(measurements):
    tree = calib.read(measurements / "xiao2025-multilevel" / "uniformity-data.xlsx")
    found = switching_node(tree["iv"].to_dataset(), [])
    assert found["n_events"].values.tolist() == [151, 151]
    assert found["voltage_quantile"].values[:, 1] == pytest.approx([0.81, 2.23], abs=0.02)
    assert int(found["n_all_cycles"]) == 25


def test_radway_cells(measurements):
    columns = "device=0,resistance_lrs=1,resistance_hrs=2,cycle=3"
    reads = calib.read(measurements / "radway-1t1r" / "100cyc.tsv", columns=columns)["reads"].to_dataset()
    found = switching_node(None, [], reads=reads)
    assert (int(found["n_devices"]), int(found["n_switched"]), int(found["n_all_cycles"])) == (1024, 981, 909)
    assert "yield_failed" not in found  # two cycles cannot show it


def test_the_contract_of_a_measurement_holds_here():
    measurement.check(
        measurement.build({"reads": cycled_reads()}, [{"name": "x", "sha256": "0", "reader": "", "why": ""}])
    )
