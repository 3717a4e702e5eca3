"""Published measurements of real devices, as they are: read right, or one clear sentence."""

import numpy as np
import pytest

import calib
from calib import measurement as m
from calib.errors import ReadError


def at(node, voltage: float) -> np.ndarray:
    """Conductance of each sweep at the point nearest to a voltage [S]."""
    v, i = node["voltage"].values, node["current"].values
    nearest = np.argmin(np.abs(np.where(np.isfinite(v), v, np.inf) - voltage), axis=1)
    rows = np.arange(len(v))
    assert np.abs(v[rows, nearest] - voltage).max() < 0.01
    return i[rows, nearest] / v[rows, nearest]


def flagged(node, name: str) -> np.ndarray:
    return (node["flag"].values & m.FLAGS[name]) != 0


@pytest.fixture(scope="module")
def ddas(measurements):
    return calib.read(measurements / "ddas04-rram" / "100devices.xlsx")["iv"].to_dataset()


@pytest.fixture(scope="module")
def xiao(measurements):
    return calib.read(measurements / "xiao2025-multilevel" / "uniformity-data.xlsx")["iv"].to_dataset()


def test_ddas_is_two_populations(ddas) -> None:
    devices = ddas.isel(sweep=ddas["population"].values == "devices")
    cycles = ddas.isel(sweep=ddas["population"].values == "100cycles")
    assert len(np.unique(devices["device"].values)) == 100
    assert set(devices["cycle"].values) == {0}
    assert np.unique(cycles["device"].values).tolist() == ["TTW(7)_0.4um_85oC_DC cycles"]
    assert np.unique(cycles["cycle"].values).tolist() == list(range(100))
    assert devices.sizes["sweep"] == cycles.sizes["sweep"] == 400
    assert np.isfinite(cycles["voltage"].values).sum() == 7300  # 100 x 73


def test_ddas_compliance_sign_and_temperature(ddas) -> None:
    positive = ddas["polarity"].values == "positive"
    devices = ddas["population"].values == "devices"
    compliance = ddas["compliance"].values
    assert np.median(compliance[positive & devices]) == pytest.approx(50e-6, rel=1e-3)
    assert np.median(compliance[positive & ~devices]) == pytest.approx(30e-6, rel=1e-3)
    assert np.isnan(compliance[~positive]).all()
    assert np.nanmax(ddas["current"].values[~positive]) < 1e-8
    assert flagged(ddas, "sign_restored").sum() > 6000
    assert np.isnan(ddas["temperature"].values).all()
    (question,) = m.notes_of(ddas, "questions")
    for part in ("25", "85oC", "100cycles", "--temperature"):
        assert part in question


def test_ddas_conductance_of_the_low_resistance_state(ddas) -> None:
    """Quantiles (5, 50, 95 %) at 0.3 V on the way down, computed from the workbook without calib."""
    keep = (ddas["population"] == "devices") & (ddas["polarity"] == "positive") & (ddas["direction"] == "down")
    quantiles = np.quantile(at(ddas.isel(sweep=keep.values), 0.3), [0.05, 0.5, 0.95])
    assert quantiles == pytest.approx([1.46e-6, 7.81e-6, 2.58e-5], rel=2e-3)


def test_ddas_labels(ddas) -> None:
    cycles = ddas.isel(sweep=ddas["population"].values == "100cycles")
    names = ("operation", "state", "direction", "polarity")
    found = set(zip(*(cycles[name].values.tolist() for name in names), strict=True))
    assert found == {
        ("set", "hrs", "up", "positive"),
        ("set", "lrs", "down", "positive"),
        ("reset", "lrs", "up", "negative"),
        ("reset", "hrs", "down", "negative"),
    }
    devices = ddas.isel(sweep=ddas["population"].values == "devices")
    positive = devices.isel(sweep=devices["polarity"].values == "positive")
    for state, direction in (("hrs", "up"), ("lrs", "down")):
        here = (positive["state"].values == state) & (positive["direction"].values == direction)
        assert len(np.unique(positive["device"].values[here])) == 100  # those that failed to switch included


def test_xiao_devices_cycles_and_clip(xiao) -> None:
    assert len(np.unique(xiao["device"].values)) == 25
    cycles = {*zip(xiao["device"].values.tolist(), xiao["cycle"].values.tolist(), strict=True)}
    assert len(cycles) == 151
    assert xiao.sizes["sweep"] == 4 * 151
    assert np.isfinite(xiao["voltage"].values).sum(axis=1).tolist() == [80] * 604
    positive = xiao["polarity"].values == "positive"
    assert xiao["compliance"].values[positive] == pytest.approx(20e-3, rel=0.01)
    assert flagged(xiao, "compliance")[positive].any(axis=1).all()
    assert not flagged(xiao, "sign_restored").any()
    assert not xiao["offset"].values.any()


def test_xiao_states_at_half_a_volt(xiao) -> None:
    """Over all 151 cycles, computed from the workbook without calib; the high state reaches the noise."""
    negative = xiao.isel(sweep=xiao["polarity"].values == "negative")
    low, high = (np.abs(at(negative.isel(sweep=negative["state"].values == s), -0.506)) for s in ("lrs", "hrs"))
    assert len(low) == len(high) == 151
    assert (low.min(), low.max()) == pytest.approx((1.3e-4, 7.9e-4), rel=0.03)
    assert (high.min(), high.max()) == pytest.approx((9e-12, 4.8e-8), rel=0.03)
    assert 1e-10 < xiao["noise_floor"].values[0] < 1e-9


def test_xiao_retention(measurements) -> None:
    node = calib.read(measurements / "xiao2025-multilevel" / "32-levels-retention.xlsx")["reads"]
    assert node.sizes == {"trace": 32, "sample": 1000}
    assert np.isfinite(node["conductance"].values).sum() > 30000
    assert node["conductance"].values[0, 0] == pytest.approx(0.000103951 / 0.5)
    assert (np.nan_to_num(node["current"].values) <= 0).all()


def test_radway_offset(measurements) -> None:
    path = measurements / "radway-1t1r" / "read_multivolt.tsv"
    with pytest.raises(ReadError, match=r"no header and 3 columns .*--columns device=0,voltage=2,current=1"):
        calib.read(path)
    node = calib.read(path, columns="device=0,current=1,voltage=2")["iv"]
    assert node.sizes == {"sweep": 1024, "point": 36}
    assert node["offset"].values == pytest.approx(-2e-6, rel=0.02)
    assert (node["offset_stderr"].values < 5e-8).all()
    assert set(node["operation"].values) == {"read"}
    assert set(node["state"].values) == {""}
    assert flagged(node, "offset").all()


def test_radway_reads(measurements) -> None:
    folder = measurements / "radway-1t1r"
    formed = calib.read(folder / "read_formed.tsv", columns="device=0,resistance=1")["reads"]
    assert formed.sizes == {"trace": 65536, "sample": 1}
    columns = "device=0,resistance_lrs=1,resistance_hrs=2,cycle=3"
    cycled = calib.read(folder / "100cyc.tsv", columns=columns)["reads"]
    assert cycled.sizes["trace"] == 2 * 2048
    assert set(cycled["state"].values) == {"lrs", "hrs"}
    assert set(cycled["cycle"].values) == {24, 49}
    columns = "device=0,time=1,resistance=2,conductance=3,current=4,voltage=5"
    kept = calib.read(folder / "ret1.csv", columns=columns)["reads"]
    assert kept.sizes == {"trace": 1, "sample": 10000}
    assert kept["conductance"].values[0, 0] == pytest.approx(9.444618312323366e-05)


@pytest.mark.parametrize("ending", ["m1V.dat", "m2V.dat", "m3V.dat", "m4V.dat", "m1V*.csv", "m1.5V*.csv", "m2V*.csv"])
def test_tiotto_starts_at_plus_one_volt(measurements, ending) -> None:
    (path,) = (measurements / "tiotto-nbsto").glob(f"*p1V_{ending}")
    node = calib.read(path)["iv"]
    assert node["polarity"].values.tolist() == ["positive", "negative", "negative", "positive"]
    assert node["direction"].values.tolist() == ["down", "up", "down", "up"]
    assert node["operation"].values.tolist() == ["set", "reset", "reset", "set"]
    assert node["state"].values.tolist() == ["lrs", "lrs", "hrs", "hrs"]
    assert node["cycle"].values.tolist() == [0] * 4
    assert np.nanmax(node["voltage"].values) == 1.0


def test_knowm_needs_columns_and_asks_for_the_unit(measurements) -> None:
    path = measurements / "knowm-discovery" / "100Hz_M3_Memristor.csv"
    with pytest.raises(ReadError, match="--columns voltage=0,current=1"):
        calib.read(path)
    node = calib.read(path, columns="voltage=0,current=1")["iv"]
    assert "--units current=uA" in m.notes_of(node, "questions")[0]
    node = calib.read(path, columns="voltage=0,current=1", units="current=uA")["iv"]
    assert m.notes_of(node, "questions") == []
    assert np.isfinite(node["voltage"].values).sum() == 200
    assert node["polarity"].values.tolist() == ["negative", "negative", "positive", "positive", "negative"]


def test_elgeresy_folder(measurements) -> None:
    node = calib.read(measurements / "elgeresy-tio2-drift")["reads"]
    assert sorted(node["device"].values)[:2] == ["11_22_proc", "18_15_proc"]
    assert node.sizes["trace"] == 8
    assert "SOURCE.txt" in m.notes_of(node)[0]


def test_timbie_retention(measurements) -> None:
    (path,) = (measurements / "timbie-fib3").glob("*_1_5_*retentiondata.csv")
    tree = calib.read(path)
    assert tree["reads"].sizes == {"trace": 1, "sample": 11}
    assert tree["reads"]["conductance"].values[0, 0] == pytest.approx(1 / 8467500.096169632)
    assert set(tree["extra"].data_vars) == {"res_min", "res_max"}


def test_levy_relaxation(measurements) -> None:
    path = measurements / "levy-relaxation" / "relaxdata.min.tsv.gz"
    tree = calib.read(path, columns="device=0,time=1,conductance=3,level=5")
    assert tree["reads"].sizes["trace"] > 16000
    assert np.isfinite(tree["reads"]["conductance"].values).sum() == 89115


@pytest.mark.parametrize(("pattern", "points"), [("b1500a*.csv", 201), ("keithley*.xls", 1085)])
def test_transistors_are_read_and_said_to_be_no_two_terminal_sweep(measurements, pattern, points) -> None:
    (path,) = (measurements / "instrument-native").glob(pattern)
    node = calib.read(path)["iv"]
    assert np.isfinite(node["voltage"].values).sum() == points
    (question,) = m.notes_of(node, "questions")
    assert "is not a two-terminal sweep" in question


@pytest.mark.parametrize(
    "name",
    ["gong-reram/gong_et_al.csv", "levy-relaxation/settings.json",
     "levy-write-verify/fppv-4wl-eval-chip1-8-7-20.csv"],
)  # fmt: skip
def test_what_cannot_be_read_yet_ends_in_one_sentence(measurements, name) -> None:
    with pytest.raises(ReadError) as caught:
        calib.read(measurements / name)
    assert "\n" not in str(caught.value)
    assert name.rpartition("/")[2] in str(caught.value)
