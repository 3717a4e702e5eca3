"""The shipped files are what their generator makes, and calib recovers the truth that they were made from."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import calib
from calib import data_folder, device_model

ROOT = Path(__file__).parent.parent


def module(name: str):
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


generate = module("datasets/generate")
build = module("fitted_models/build")
measured = module("fitted_models/measured")
QUICK = ("levy-write-verify", "wang-yflash", "gong-reram")  # seconds each; the others with make reproduction
SWEEPS, READS = generate.TRUTH["oxide-sweeps"], generate.TRUTH["crossbar-reads"]


def open_bundled(name: str) -> xr.DataTree:
    return device_model.open_device(data_folder.bundled_model_path(name))


@pytest.mark.parametrize(
    ("file", "make"),
    [("oxide-sweeps.csv.gz", generate.oxide_sweeps), ("crossbar-reads.tsv.gz", generate.crossbar_reads)],
)
def test_the_generator_makes_the_shipped_file(file, make):
    shipped = gzip.decompress((data_folder.datasets_folder() / file).read_bytes()).decode()
    assert shipped == make()


@pytest.fixture(scope="module")
def oxide() -> xr.DataTree:
    return calib.fit(calib.read(data_folder.datasets_folder() / "oxide-sweeps.csv.gz"))


def test_the_sweeps_are_understood():
    measurement = calib.read(data_folder.datasets_folder() / "oxide-sweeps.csv.gz")
    iv = measurement["iv"].to_dataset()
    assert len(np.unique(iv["device"])) == SWEEPS["devices"]
    assert iv.sizes["sweep"] == 4 * SWEEPS["devices"] * SWEEPS["cycles"]
    assert np.unique(iv["temperature"]).tolist() == [SWEEPS["temperature"]]
    restored = int(
        iv["flag"].attrs["flag_masks"][str(iv["flag"].attrs["flag_meanings"]).split().index("sign_restored")]
    )
    negative = (iv["voltage"].values < 0) & (np.abs(iv["current"].values) > 1e-9)
    assert (iv["current"].values[negative] < 0).all()
    assert (iv["flag"].values[negative] & restored).all()
    floor = float(iv["noise_floor"][0])  # three standard deviations of the added noise, from few small currents
    assert SWEEPS["noise_floor"] / 3 < floor < 3 * SWEEPS["noise_floor"]


@pytest.mark.parametrize("state", ["lrs", "hrs"])
def test_the_population_law_of_the_sweeps_is_recovered(oxide, state):
    node = oxide["iv"].to_dataset().sel(state=state, parameter="gamma", parameter_other="gamma")
    truth = SWEEPS[state]
    ln_r = np.log(truth["r_median"])
    is_log = str(node["transform"].values) == "log"  # a spread of 8 to 10 % hardly tells the two apart
    at_median = float(node["intercept"] + node["slope"] * ln_r)
    gamma = np.exp(at_median) if is_log else at_median
    # the shape is drawn once a device, so 46 devices determine the line at the median R
    assert np.log(gamma / truth["gamma"]) == pytest.approx(0, abs=4 * truth["spread"] / np.sqrt(SWEEPS["devices"]))
    to_log = 1.0 if is_log else 1 / gamma
    slope_error = 4 * float(node["slope_stderr"]) * to_log
    assert float(node["slope"]) * to_log == pytest.approx(truth["slope"], abs=slope_error)
    # a standard deviation from 46 devices is known to 1/sqrt(2 x 45), about 11 %
    assert np.sqrt(float(node["covariance"])) * to_log == pytest.approx(truth["spread"], rel=0.35)


@pytest.mark.parametrize("state", ["lrs", "hrs"])
def test_the_programming_spread_of_the_sweeps_is_recovered(oxide, state):
    node = oxide["programming"].to_dataset().sel(state=state)
    truth = SWEEPS[state]
    for component in ("sigma_d2d", "sigma_c2c"):
        assert float(node[component]) == pytest.approx(truth[component], abs=4 * float(node[f"{component}_stderr"]))
    median_error = truth["sigma_d2d"] / np.sqrt(SWEEPS["devices"]) * 1.25
    assert np.log(float(node["r_median"]) / truth["r_median"]) == pytest.approx(0, abs=4 * median_error)


def test_the_stuck_devices_of_the_sweeps_are_found(oxide):
    node = oxide["stuck"].to_dataset()
    assert sorted(node["stuck_device"].values) == [f"D{device + 1:02d}" for device in SWEEPS["stuck_devices"]]
    assert int(node["n_devices"]) == SWEEPS["devices"]


def test_the_reads_of_the_array_give_their_truth_back():
    node = open_bundled("synthetic-crossbar")
    stuck = node["stuck"].to_dataset()
    low, high = stuck["probability_bound"].values
    assert low < READS["stuck_probability"] < high
    assert int(stuck["n_devices"]) == READS["rows"] * READS["columns"]
    programming = node["programming"].to_dataset()
    for state in ("lrs", "hrs"):
        here = programming.sel(state=state)
        d2d, c2c = READS[state]["sigma_d2d"], np.hypot(READS[state]["sigma_c2c"], READS["relative_noise"])
        assert float(here["sigma_d2d"]) == pytest.approx(d2d, abs=4 * float(here["sigma_d2d_stderr"]))
        assert float(here["sigma_c2c"]) == pytest.approx(c2c, abs=4 * float(here["sigma_c2c_stderr"]))


def test_the_bundled_models_are_those_that_the_command_builds():
    built = build.build_all()
    assert sorted({*built, *measured.SOURCES}) == sorted(data_folder.bundled_model_names())
    for name, model in built.items():
        assert_same(model, open_bundled(name))


def assert_same(model: xr.DataTree, bundled: xr.DataTree) -> None:
    assert set(model.children) == set(bundled.children)
    for node_name in bundled.children:
        xr.testing.assert_allclose(model[node_name].to_dataset(), bundled[node_name].to_dataset(), rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.reproduction) for name in measured.SOURCES],
)
def test_the_models_of_published_measurements_are_those_that_the_command_builds(measurements, name):
    assert_same(measured.build(name, measurements), open_bundled(name))


@pytest.mark.parametrize("name", list(measured.SOURCES))
def test_the_models_of_published_measurements_hold_numbers_and_a_citation_but_no_curves(name):
    model = open_bundled(name)
    assert "examples" not in model.children
    assert all("example" not in node.to_dataset().dims for node in model.children.values())
    assert "https://github.com/" in model.attrs["citation"]
    assert model.attrs["license"]
    assert device_model.attribute(model, "options")["command"].startswith("calib fit ")


def test_the_published_silicon_oxide_has_the_spread_of_the_paper():
    """Another description of the same data gives I(2V) / I(V) = 2.99 +- 0.369 (Joksas et al. 2022, at 0.25 V)."""
    from calib.iv_models import iv_model
    from calib.sampling import sample_devices

    ln_r, parameters = sample_devices(open_bundled("siox-high-resistance"), "all", 20_000, seed=1)
    law = iv_model("poole-frenkel")
    half, full = (law.current(np.full(len(ln_r), v), xp=np, **parameters) for v in (0.25, 0.5))
    assert np.mean(full / half) == pytest.approx(2.99, abs=0.1)
    assert np.std(full / half) == pytest.approx(0.369, abs=0.03)
    at_reference = law.current(np.full(len(ln_r), 0.1), xp=np, **parameters)
    np.testing.assert_allclose(0.1 / at_reference, np.exp(ln_r), rtol=1e-12)
