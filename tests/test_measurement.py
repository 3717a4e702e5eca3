"""The Measurement contract: build, check, merge, save and open."""

import json

import numpy as np
import pytest
import xarray as xr

from calib import measurement as m
from calib.errors import CalibError, ReadError


def trace(device: str = "a", size: int = 4, **labels: object) -> m.Trace:
    voltage = np.linspace(0.0, 1.0, size)
    return m.Trace(voltage, 1e-6 * voltage, device, **labels)  # type: ignore[arg-type]


def tree(*traces: m.Trace, name: str = "x.csv") -> m.Measurement:
    node = m.iv_node(traces, questions=["which?"], notes=["read"])
    return m.build({"iv": node}, [{"name": name, "sha256": "0" * 64, "reader": "table", "why": "text"}], sample="s")


def full_tree() -> m.Measurement:
    """A Measurement with every kind of node."""
    two = [trace("a", 4), trace("b", 6, temperature=300.0, place={"row": 3, "die": "d1"})]
    reads = m.reads_node(
        {"conductance": np.array([[1e-6, 2e-6], [3e-6, np.nan]]), "time": np.array([[0.0, 1.0], [0.0, np.nan]])},
        {"device": ["a", "b"], "level": ["0", "µ"]},
    )
    writes = m.writes_node(
        {"target_low": [0.0, 1e-6], "target_high": [1e-6, np.inf], "achieved": [5e-7, 2e-6], "attempts": [1, 2]},
        {"device": "a", "cycle": [0, 1]},
    )
    pulses = m.pulses_node(
        {"conductance": np.ones((1, 3, 2)), "amplitude": np.ones((1, 3)), "width": np.full((1, 3), 1e-6)},
        {"device": "a", "polarity": "positive"},
        conductance_unit="1",
    )
    extra = m.extra_node(
        {"res_min": (np.array([1.0, 2.0]), "ohm", "res min"), "tag": (np.array(["a", ""]), "1", "tag")}, "x"
    )
    nodes = {"iv": m.iv_node(two), "reads": reads, "writes": writes, "pulses": pulses, "extra": extra}
    return m.build(nodes, [{"name": "x.csv", "sha256": "1" * 64, "reader": "table", "why": ""}], citation="Näme")


def test_every_node_round_trips_identically(tmp_path) -> None:
    before = full_tree()
    m.check(before)
    m.save(before, tmp_path / "x.nc")
    after = m.open_measurement(tmp_path / "x.nc")
    xr.testing.assert_identical(before, after)
    assert after["iv"]["device"].dtype.kind == "U"
    assert list(tmp_path.iterdir()) == [tmp_path / "x.nc"]


def test_variables_state_units_and_padding() -> None:
    node = m.iv_node([trace("a", 2), trace("b", 5)])
    assert node["voltage"].attrs == {"units": "V", "long_name": "voltage"}
    assert node["current"].attrs["units"] == "A"
    assert np.isnan(node["voltage"].values[0, 2:]).all()
    assert node["flag"].attrs["flag_meanings"].split()[0] == "compliance"
    assert node["flag"].attrs["flag_masks"].tolist() == [1, 2, 4, 8, 16, 32, 64, 128]


def test_points_with_one_value_are_left_out_and_counted() -> None:
    voltage = np.array([0.0, 0.5, np.nan, 1.0])
    node = m.iv_node([m.Trace(voltage, np.array([0.0, np.nan, np.nan, 1e-6]), "a")])
    assert node["voltage"].values.tolist() == [[0.0, 1.0]]
    assert m.notes_of(node) == ["1 points have a voltage or a current, but not both, and are left out"]


def test_merge_keeps_devices_and_sources() -> None:
    first, second = tree(trace("a", 3), name="1.csv"), tree(trace("a", 5), trace("b", 2), name="2.csv")
    merged = m.merge([first, second])
    m.check(merged)
    iv = merged["iv"]
    assert iv["device"].values.tolist() == ["a", "a", "b"]
    assert iv["source"].values.tolist() == [0, 1, 1]
    assert [s["name"] for s in json.loads(merged.attrs["sources"])] == ["1.csv", "2.csv"]
    assert iv.sizes == {"sweep": 3, "point": 5}
    assert m.notes_of(iv, "questions") == ["which?"]
    assert merged.attrs["sample"] == "s"


def test_merge_fills_what_one_part_lacks() -> None:
    other = m.build({"iv": m.iv_node([trace("c", 2, place={"row": 7})])}, [])
    timed = m.build({"iv": m.iv_node([m.Trace(np.arange(2.0), np.arange(2.0), "d", np.arange(2.0))])}, [])
    merged = m.merge([full_tree(), other, timed])
    m.check(merged)
    assert merged["iv"]["row"].values.tolist() == [-1, 3, 7, -1]
    assert np.isnan(merged["iv"]["time"].values[:3]).all()
    assert set(merged.children) == {"iv", "reads", "writes", "pulses", "extra"}


def test_merge_of_nothing_is_refused() -> None:
    with pytest.raises(ReadError, match="at least one"):
        m.merge([])


def test_check_lists_all_problems_together() -> None:
    bad = tree(trace())
    node = bad["iv"].to_dataset(inherit=False)
    node = node.drop_vars("compliance").assign(wrong=("sweep", [1.0]))
    node["voltage"].attrs.pop("units")
    node.attrs["list"] = [1, 2]
    bad["iv"].dataset = node
    with pytest.raises(ReadError) as caught:
        m.check(bad)
    message = str(caught.value)
    for part in ("'compliance' is missing", "'units' is missing", "iv/wrong: no such variable", "'list' is a list"):
        assert part in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n["voltage"].values.__setitem__((0, 1), np.nan), "must be finite at the same points"),
        (lambda n: [n[k].values.__setitem__((0, 1), np.nan) for k in ("voltage", "current")], "only pad the end"),
        (lambda n: [n[k].values.__setitem__(0, np.nan) for k in ("voltage", "current")], "1 sweeps hold no point"),
        (lambda n: n["flag"].values.__setitem__((0, 0), 1024), "bits that have no meaning"),
        (lambda n: n["flag"].attrs.update(flag_meanings="a b"), "flag_masks and flag_meanings"),
        (lambda n: n["current"].values.__setitem__((0, 0), np.inf), "must be finite"),
    ],
)
def test_check_of_values(change, message) -> None:
    bad = tree(trace())
    node = bad["iv"].to_dataset(inherit=False).copy(deep=True)
    change(node)
    bad["iv"].dataset = node
    with pytest.raises(ReadError, match=message):
        m.check(bad)


def test_check_of_the_root() -> None:
    empty = m.build({}, [])
    with pytest.raises(ReadError, match="no node holds any data"):
        m.check(empty)
    empty.attrs["schema"] = "other"
    with pytest.raises(ReadError, match="schema is 'other', expected 'calib-measurement/1'"):
        m.check(empty)


def test_opening_what_is_no_measurement(tmp_path) -> None:
    with pytest.raises(ReadError, match="does not exist"):
        m.open_measurement(tmp_path / "no.nc")
    path = tmp_path / "cut.nc"
    m.save(tree(trace()), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ReadError, match=r"'.*cut.nc' cannot be opened as netCDF-4"):
        m.open_measurement(path)
    other = tmp_path / "other.nc"
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(other, engine="h5netcdf")
    with pytest.raises(ReadError, match="other.nc': not a valid Measurement: root: schema"):
        m.open_measurement(other)


def test_saving_where_one_cannot(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CalibError, match="cannot write"):
        m.save(tree(trace()), tmp_path / "file" / "x.nc")


def test_padded_keeps_integers() -> None:
    result = m.padded([np.array([1, 2]), np.array([3])], fill=-1)
    assert result.tolist() == [[1, 2], [3, -1]]
    assert result.dtype.kind == "i"
