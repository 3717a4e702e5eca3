"""Conductances as measured: read voltages, reads, tables and the range."""

import numpy as np
import pytest

from calib.fitting.conductance import QUANTILES, at_floor, range_of, read_at, read_voltages, state_tables
from calib.fitting.intervals import quantile_interval
from tests.synthetic import FLAG, HRS, LRS, State, iv_dataset, iv_node


def test_read_voltages_are_measured_ones_of_both_signs() -> None:
    node = iv_node(devices=3, cycles=1, polarities=("positive", "negative"))
    np.testing.assert_allclose(read_voltages(node, 0.1), [-0.5, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.5])


def test_the_reference_voltage_is_among_them() -> None:
    assert 0.06 in read_voltages(iv_node(devices=3, cycles=1), -0.06)


def test_a_read_voltage_is_the_nearest_measured_one() -> None:
    node = iv_node(devices=3, cycles=1, voltage=np.array([0.0, 0.09, 0.19, 0.4]))
    np.testing.assert_allclose(read_voltages(node, 0.1), [0.09, 0.19, 0.4])  # 0.3 is nearer to 0.4 than a third
    coarse = iv_node(devices=3, cycles=1, voltage=np.array([0.0, 1.0, 2.0]))
    assert len(read_voltages(coarse, 0.1)) == 0


def test_reading() -> None:
    voltage = np.tile([0.0, 0.05, 0.1, 0.2], (4, 1))
    current = 1e-5 * voltage
    flag = np.zeros((4, 4), dtype=np.int32)
    flag[1, 2], flag[2, 2] = FLAG["spike"], FLAG["below_floor"]
    voltage[3, 2] = 0.104
    node = iv_dataset(voltage, current, flag)
    g, censored = read_at(node, 0.1)
    np.testing.assert_allclose(g, [1e-5, np.nan, 1e-5, 1e-6 / 0.104])
    assert censored.tolist() == [False, False, True, False]
    assert np.isnan(read_at(node, -0.1)[0]).all()
    assert np.isnan(read_at(node, 0.15)[0]).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_reading_removes_the_offset(sign: float) -> None:
    voltage = sign * np.tile([0.05, 0.1], (2, 1))
    node = iv_dataset(voltage, 1e-5 * voltage + 3e-7, offset=np.array([3e-7, 3e-7]))
    np.testing.assert_allclose(read_at(node, sign * 0.1)[0], 1e-5)


def test_tables() -> None:
    """Quantiles of the reads themselves: ohmic devices read the same at every voltage."""
    node = iv_node({"lrs": LRS, "hrs": HRS}, devices=20, cycles=3, ohmic=True, noise=0.0)
    node["flag"][0, 5] = FLAG["below_floor"]
    tables = state_tables(node, ["lrs", "hrs"], np.array([0.1, 0.3]))
    g = read_at(node, 0.1)[0].reshape(2, 60)
    dims, quantiles, attrs = tables["g_quantile"]
    assert dims == ("state", "read_voltage", "quantile")
    assert attrs["units"] == "S"
    np.testing.assert_allclose(quantiles[:, 0], np.quantile(g, QUANTILES, axis=1).T, rtol=1e-12)
    np.testing.assert_allclose(quantiles[:, 1], quantiles[:, 0], rtol=1e-12)
    np.testing.assert_allclose(tables["median"][1][:, 0], np.median(g, axis=1), rtol=1e-12)
    np.testing.assert_allclose(tables["minimum"][1][:, 0], g.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(tables["maximum"][1][:, 0], g.max(axis=1), rtol=1e-12)
    assert tables["n"][1].tolist() == [[60, 60], [60, 60]]
    assert tables["n_censored"][1].tolist() == [[1, 0], [0, 0]]


def test_a_state_that_was_not_read_is_missing_from_the_table() -> None:
    node = iv_node({"lrs": LRS}, devices=3, cycles=1)
    tables = state_tables(node, ["lrs", "hrs"], np.array([0.1]))
    assert np.isnan(tables["median"][1][1]).all()
    assert tables["n"][1].tolist() == [[3], [0]]


def test_nonlinear_devices_conduct_better_at_higher_voltages() -> None:
    node = iv_node({"hrs": State(ln_r=13.0, intercept=2.0)}, devices=5, cycles=1, noise=0.0)
    medians = state_tables(node, ["hrs"], np.array([0.1, 0.5]))["median"][1][0]
    assert medians[1] / medians[0] == pytest.approx(np.exp(2.0 * (np.sqrt(0.5) - np.sqrt(0.1))), rel=1e-9)


def test_range_is_the_medians_with_their_intervals() -> None:
    low, high = np.arange(1.0, 12.0) * 1e-6, np.arange(1.0, 12.0) * 1e-4
    result = range_of(low, high)
    assert result["g_off"][1] == pytest.approx(6e-6)
    assert result["g_on"][1] == pytest.approx(6e-4)
    np.testing.assert_allclose(result["g_off_bound"][1], quantile_interval(low, 0.5))
    np.testing.assert_allclose(result["g_on_bound"][1], [2e-4, 10e-4])  # 2nd and 10th of 11, by the binomial
    assert np.isnan(range_of(low[:3], high[:3])["g_on_bound"][1]).all()


def test_quantiles_have_intervals_of_devices() -> None:
    """Cycles of a device are no devices: the median's interval is wider than if they were."""
    node = iv_node({"lrs": LRS}, devices=20, cycles=5, ohmic=True, noise=0.0)
    tables = state_tables(node, ["lrs"], np.array([0.1]))
    assert tables["g_quantile_bound"][0] == ("state", "read_voltage", "quantile", "bound")
    low, high = tables["median_bound"][1][0, 0]
    median = tables["median"][1][0, 0]
    assert low < median < high
    g = read_at(node, 0.1)[0]
    naive = quantile_interval(g, 0.5)
    assert np.log(high / low) > 1.5 * np.log(naive[1] / naive[0])
    assert np.isnan(tables["g_quantile_bound"][1][0, 0, [0, -1]]).all()
    assert tables["n_devices"][1].tolist() == [[20]]


def test_what_is_known_of_a_resistance_at_the_floor() -> None:
    ln_r = np.array([10.0, 25.0, 30.0])
    censored = np.array([False, True, True])
    found = at_floor(ln_r, censored, np.array([1e-9, 1e-9, np.nan]), 0.1)
    np.testing.assert_allclose(found, [10.0, np.log(1e8), 30.0])


def test_quantiles_other_than_medians() -> None:
    values = np.linspace(1e-6, 1e-4, 200)
    result = range_of(values, values, (0.05, 0.95))
    assert result["g_off"][1] == pytest.approx(np.quantile(values, 0.05))
    np.testing.assert_allclose(result["g_on_bound"][1], quantile_interval(values, 0.95))
