"""Which points and which window are fitted, and the resistance that follows."""

import numpy as np
import pytest
import xarray as xr

from calib.errors import FitError, OptionError
from calib.fitting.curves import (
    MISFIT_THRESHOLD,
    fit_curves,
    fit_window,
    flag_mask,
    last_that_serves,
    select,
    some,
    supported_window,
    thinned,
    window_ends,
)
from calib.iv_models import iv_model
from tests.synthetic import FLAG, HRS, V_REF, VOLTAGE, draw, iv_dataset, iv_node, poole_frenkel

PF = iv_model("poole-frenkel")
OHMIC = iv_model("ohmic")
LONG = np.round(np.arange(0.02, 1.2001, 0.02), 6)


def branches(
    n: int = 30, noise: float = 0.01, voltage: np.ndarray = VOLTAGE, deviation: float = 0.0, seed: int = 0
) -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """Return an iv node of state 'hrs', ln R and gamma; above 0.6 V the law grows by exp(deviation (V - 0.6))."""
    generator = np.random.default_rng(seed)
    ln_r, c, gamma = draw(HRS, n, 1, generator)
    clean = poole_frenkel(voltage, c, gamma) * np.exp(deviation * np.maximum(voltage - 0.6, 0.0))
    current = clean * (1 + noise * generator.standard_normal(clean.shape))
    device = np.array([f"d{k}" for k in range(n)])
    node = iv_dataset(np.tile(voltage, (n, 1)), current, device=device, state="hrs")
    return node, ln_r[:, 0], gamma[:, 0]


@pytest.mark.parametrize("name", ["compliance", "spike", "below_floor", "switching", "saturated", "duplicate"])
def test_flagged_points_are_left_out_and_counted(name: str) -> None:
    node, _, _ = branches(3)
    node["flag"][1, 10:13] = FLAG[name] | FLAG["sign_restored"]
    part = select(node, "hrs", "positive")
    assert np.isnan(part.current[1, 10:13]).all()
    assert np.isfinite(part.current[0, 1:]).all()
    assert part.n_excluded == {name: 3}
    assert flag_mask(node, (name,)).sum() == 3


@pytest.mark.parametrize("name", ["sign_restored", "offset"])
def test_points_that_were_put_right_are_kept(name: str) -> None:
    node, _, _ = branches(3)
    node["flag"][:] = FLAG[name]
    part = select(node, "hrs", "positive")
    assert np.isfinite(part.current[:, 1:]).all()
    assert part.n_excluded == {}


def test_branches_are_chosen_by_state_and_polarity() -> None:
    node = iv_node(devices=3, cycles=2, polarities=("positive", "negative"))
    positive, negative = select(node, "lrs", "positive"), select(node, "lrs", "negative")
    assert len(positive) == len(negative) == 6
    assert np.nanmin(negative.voltage) > 0
    assert np.nanmin(negative.current) > 0
    assert list(negative.device) == ["d000", "d000", "d001", "d001", "d002", "d002"]
    assert list(negative.cycle) == [0, 1] * 3
    assert len(select(node, "level-7", "positive")) == 0


def test_padding_is_no_point() -> None:
    node, _, _ = branches(3)
    node["voltage"][2, 20:] = np.nan
    node["current"][2, 20:] = np.nan
    node["flag"][2, 20:] = 0
    part = select(node, "hrs", "positive")
    fits = fit_curves(PF, part, 0.5, V_REF)
    assert fits.fit.n_points.tolist() == [25, 25, 19]


def test_an_offset_is_removed_and_fitted() -> None:
    """Found with 10 % error before the fit: the fit settles the rest, and R is that of the law alone."""
    node, ln_r, gamma = branches(20, noise=0.005)
    offset = 0.5 * node["current"].values[:, 5]  # half the current at 0.1 V
    node["current"][:] = node["current"].values + offset[:, None]
    node = node.assign_coords(offset=("sweep", 0.9 * offset), noise_floor=("sweep", 3e-3 * offset))
    part = select(node, "hrs", "positive")
    assert part.has_offset
    assert np.isfinite(part.current[:, 0]).all()  # at zero volt there is the offset alone
    fits = fit_curves(PF, part, 0.5, V_REF)
    assert fits.ok.all()
    assert np.abs((fits.ln_r - ln_r) / fits.ln_r_stderr).max() < 4.5
    assert np.abs((fits.fit.values[:, 1] - gamma) / fits.fit.stderr[:, 1]).max() < 4.5
    np.testing.assert_allclose(fits.fit.offset, 0.1 * offset, atol=5 * np.max(fits.fit.offset_stderr))


def test_negative_branches_have_the_offset_of_their_sign() -> None:
    node, ln_r, _ = branches(10, noise=0.002)
    flipped = node.assign_coords(polarity=("sweep", ["negative"] * 10))
    flipped["voltage"][:] = -node["voltage"].values
    offset = 0.5 * node["current"].values[:, 5]
    flipped["current"][:] = -node["current"].values + offset[:, None]
    flipped = flipped.assign_coords(offset=("sweep", offset))
    fits = fit_curves(PF, select(flipped, "hrs", "negative"), 0.5, V_REF)
    np.testing.assert_allclose(fits.ln_r, ln_r, atol=0.02)


@pytest.mark.parametrize("deviation", [10.0, -10.0])
def test_the_window_ends_where_the_law_does(deviation: float) -> None:
    """A factor exp(+-10 (V - 0.6)) passes 20 % at 0.62 V: the law bends a little way along, no further than 0.76 V."""
    node, _, _ = branches(30, voltage=LONG, deviation=deviation)
    v_max, misfit = supported_window(PF, select(node, "hrs", "positive"))
    assert 0.58 <= v_max <= 0.76
    assert misfit <= MISFIT_THRESHOLD
    _, _, beyond = fit_window(PF, select(node, "hrs", "positive"), 0.9)
    assert beyond > MISFIT_THRESHOLD


@pytest.mark.parametrize("noise", [0.001, 0.1])
def test_noise_does_not_shorten_the_window(noise: float) -> None:
    node, _, _ = branches(30, noise=noise, voltage=LONG)
    v_max, _ = supported_window(PF, select(node, "hrs", "positive"))
    assert v_max == 1.2


def test_measured_voltages_may_differ_from_curve_to_curve() -> None:
    generator = np.random.default_rng(8)
    voltage = np.sort(generator.uniform(0.01, 0.6, (120, 25)), axis=1)
    _, c, gamma = draw(HRS, 120, 1, generator)
    node = iv_dataset(
        voltage, poole_frenkel(voltage, c, gamma), device=np.array([f"d{k}" for k in range(120)]), state="hrs"
    )
    v_max, misfit = supported_window(PF, select(node, "hrs", "positive"))
    assert 0.55 < v_max < 0.6  # no further than half the curves reach
    assert misfit < 1e-3


def test_a_window_without_enough_voltages_is_refused() -> None:
    node, _, _ = branches(5, voltage=np.array([0.1, 0.2, 0.3]))
    with pytest.raises(FitError, match=r"state 'hrs' have 3 usable voltages; poole-frenkel needs 4; measure more"):
        supported_window(PF, select(node, "hrs", "positive"))


def test_a_window_beyond_the_data_is_refused() -> None:
    node, _, _ = branches(5)
    part = select(node, "hrs", "positive")
    with pytest.raises(OptionError, match=r"--v-max is 0\.7 V but .* state 'hrs' end at 0\.5 V; give at most 0\.5"):
        fit_curves(PF, part, 0.7, V_REF)
    assert fit_curves(PF, part, 0.5, V_REF).v_max == 0.5


def test_no_usable_point_is_refused() -> None:
    node, _, _ = branches(5)
    node["flag"][:] = FLAG["compliance"]
    with pytest.raises(FitError, match=r"state 'hrs' have no usable point; 'calib inspect' lists why"):
        fit_curves(PF, select(node, "hrs", "positive"), 0.5, V_REF)


def test_points_outside_the_window_do_not_matter() -> None:
    node, _, _ = branches(5)
    inside = fit_curves(PF, select(node, "hrs", "positive"), 0.3, V_REF)
    node["current"][:, 16:] = 1.0
    again = fit_curves(PF, select(node, "hrs", "positive"), 0.3, V_REF)
    np.testing.assert_array_equal(inside.fit.values, again.fit.values)
    assert (inside.v_min, inside.v_max) == (0.02, 0.3)
    assert inside.fit.n_points.tolist() == [15] * 5


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_resistance_and_its_standard_error(noise: float) -> None:
    """Pulls over 400 curves: Student's t, 23 degrees, standard deviation 1.05 known to 3.5 %; no bias above 4 sigma.

    Weights are estimated from the noise, which costs a few percent more at 10 %.
    """
    node, ln_r, gamma = branches(400, noise=noise)
    fits = fit_curves(PF, select(node, "hrs", "positive"), 0.5, V_REF)
    for pulls in ((fits.ln_r - ln_r) / fits.ln_r_stderr, (fits.fit.values[:, 1] - gamma) / fits.fit.stderr[:, 1]):
        assert abs(pulls.mean()) < 4 * pulls.std() / np.sqrt(400)
        assert pulls.std() == pytest.approx(1.05, abs=0.15)
    np.testing.assert_allclose(fits.relative_rms.mean(), noise, rtol=0.15)


def test_currents_under_the_noise_floor_neither_enter_nor_shift_the_fit() -> None:
    """An absolute noise of 7 % of the current at 0.1 V, floor three times that; points under it are flagged."""
    node, ln_r, gamma = branches(200, noise=0.005)
    clean = node["current"].values.copy()
    floor = 0.2 * clean[:, 5]
    generator = np.random.default_rng(3)
    current = clean + floor[:, None] / 3 * generator.standard_normal(clean.shape)
    node["current"][:] = current
    node["flag"][:] = np.where(np.abs(current) < floor[:, None], FLAG["below_floor"], 0)
    node = node.assign_coords(noise_floor=("sweep", floor))
    part = select(node, "hrs", "positive")
    assert part.n_excluded["below_floor"] > 300  # zero volt, and part of what follows
    fits = fit_curves(PF, part, 0.5, V_REF)
    for pulls in ((fits.ln_r - ln_r) / fits.ln_r_stderr, (fits.fit.values[:, 1] - gamma) / fits.fit.stderr[:, 1]):
        assert abs(np.median(pulls)) < 0.5
        assert pulls.std() == pytest.approx(1.1, abs=0.25)


def test_a_failed_curve_keeps_its_status() -> None:
    node, ln_r, _ = branches(5)
    node["flag"][2, 2:] = FLAG["compliance"]
    fits = fit_curves(PF, select(node, "hrs", "positive"), 0.5, V_REF)
    assert fits.ok.tolist() == [True, True, False, True, True]
    assert fits.fit.status[2].startswith("1 usable points")
    assert np.isnan(fits.ln_r[2])
    assert np.isnan(fits.ln_r_stderr[2])
    np.testing.assert_allclose(fits.ln_r[fits.ok], ln_r[fits.ok], atol=0.05)


def test_ohmic_curves() -> None:
    node = iv_node({"lrs": HRS}, devices=5, cycles=1, ohmic=True, noise=0.01, seed=3)
    part = select(node, "lrs", "positive")
    fits = fit_curves(OHMIC, part, supported_window(OHMIC, part)[0], V_REF)
    expected = draw(HRS, 5, 1, np.random.default_rng(3))[0][:, 0]
    assert np.abs((fits.ln_r - expected) / fits.ln_r_stderr).max() < 4
    assert fits.v_max == 0.5


@pytest.mark.parametrize("first_bad", range(25))
def test_the_last_window_before_the_first_that_does_not_serve(first_bad: int) -> None:
    ends = np.arange(24.0)
    tried: list[float] = []

    def serves(end: float) -> bool:
        tried.append(end)
        return end < first_bad

    found = last_that_serves(ends, serves)
    assert found == (None if first_bad == 0 else first_bad - 1.0)
    assert len(tried) == len(set(tried)) <= 10


def test_the_search_takes_the_same_curves_whatever_their_order() -> None:
    node, _, _ = branches(30)
    part = select(node, "hrs", "positive")
    order = np.random.default_rng(0).permutation(30)
    few, mixed = thinned(part, 7), thinned(some(part, order), 7)
    assert len(few) == 7
    assert set(few.device) == set(mixed.device)
    assert {min(part.device), max(part.device)} <= set(few.device)
    assert thinned(part, 30) is part


def test_windows_end_at_measured_voltages_that_half_the_curves_reach() -> None:
    node, _, _ = branches(10, voltage=LONG)
    node["flag"][:6, 40:] = FLAG["compliance"]
    ends = window_ends(PF, select(node, "hrs", "positive"))
    assert ends[0] == LONG[3]
    assert ends[-1] == LONG[39]
    assert set(ends) <= set(LONG)
