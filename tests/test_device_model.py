"""The DeviceModel contract: round trip, identity, refusals, writing, and sampling."""

import copy
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from calib import files
from calib.calibrate import fit
from calib.device_model import SCHEMA, attribute, build, check, identity, open_device, save, shape_law
from calib.errors import CalibError, ModelError
from calib.iv_models import iv_model
from calib.sampling import sample_devices, sample_parameters, sample_resistance
from tests.synthetic import V_REF, dataset, device_nodes, iv_node, measurement

PF = iv_model("poole-frenkel")


@pytest.fixture
def tree() -> xr.DataTree:
    return build(
        device_nodes(), name="by hand", citation="a test", assumptions=["µ and Ω are kept"], options={"v_max": None},
        sources=[{"name": "a.csv", "sha256": "0" * 64}],
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted() -> xr.DataTree:
    return fit(measurement(iv=iv_node(devices=12, cycles=2, stuck=(3,))), v_max=0.5, name="fitted")


def changed(tree: xr.DataTree, node: str, change: Callable[[xr.Dataset], xr.Dataset]) -> xr.DataTree:
    nodes = {str(key): child.to_dataset() for key, child in tree.children.items()}
    result = xr.DataTree.from_dict({"/": xr.Dataset(attrs=tree.attrs), **{f"/{k}": v for k, v in nodes.items()}})
    result[node] = xr.DataTree(change(nodes[node].copy(deep=True)))
    return result


# Round trip and identity


def test_save_and_open_are_identical(tree: xr.DataTree, fitted: xr.DataTree, tmp_path: Path) -> None:
    for model in (tree, fitted):
        path = tmp_path / "model.nc"
        save(model, path)
        opened = open_device(path)
        xr.testing.assert_identical(opened, model)
        assert identity(opened) == identity(model)
        save(opened, tmp_path / "again.nc")
        xr.testing.assert_identical(open_device(tmp_path / "again.nc"), model)


def test_the_file_is_closed_after_opening(tree: xr.DataTree, tmp_path: Path) -> None:
    path = tmp_path / "model.nc"
    save(tree, path)
    opened = open_device(path)
    path.unlink()
    assert float(dataset(opened, "conductance")["g_on"]) == 5e-4


def test_attributes_are_text_or_numbers(fitted: xr.DataTree) -> None:
    for node in (fitted, *fitted.children.values()):
        assert all(isinstance(value, str | int | float) for value in node.attrs.values())
        for variable in node.to_dataset(inherit=False).variables.values():
            assert all(isinstance(value, str | int | float) for value in variable.attrs.values())


def test_json_attributes_are_decoded(tree: xr.DataTree) -> None:
    assert attribute(tree, "assumptions") == ["µ and Ω are kept"]
    assert attribute(tree, "options") == {"v_max": None}
    assert attribute(tree, "sources") == [{"name": "a.csv", "sha256": "0" * 64}]
    assert attribute(tree, "warnings") == []
    assert attribute(tree, "name") == "by hand"


def test_identity_does_not_depend_on_when_and_by_what_it_was_made(tree: xr.DataTree) -> None:
    before = identity(tree)
    assert len(before) == 64
    later = copy.deepcopy(tree)
    later.attrs |= {"created": "2050-01-01T00:00:00Z", "calib_version": "9.9"}
    later.attrs = dict(reversed(later.attrs.items()))
    assert identity(later) == before


@pytest.mark.parametrize("node", ["iv", "conductance", "programming", "stuck"])
def test_identity_depends_on_every_value(tree: xr.DataTree, node: str) -> None:
    before = identity(tree)
    data = dataset(tree, node)
    for name in map(str, data.variables):

        def change(data: xr.Dataset, name: str = name) -> xr.Dataset:
            values = data[name].values.copy()
            values[...] = (
                values + 1 if values.dtype.kind in "iu" else values * (1 + 1e-15) if values.dtype.kind == "f" else "x"
            )
            return data.assign({name: (data[name].dims, values, data[name].attrs)})

        if data[name].dtype.kind == "f" and not (data[name].values != 0).any():
            continue
        assert identity(changed(tree, node, change)) != before, name


def test_identity_depends_on_attributes_and_nodes(tree: xr.DataTree) -> None:
    before = identity(tree)
    renamed = copy.deepcopy(tree)
    renamed.attrs["citation"] = "another"
    assert identity(renamed) != before
    assert identity(changed(tree, "iv", lambda data: data.assign_attrs(form="paper"))) != before
    fewer = {str(k): v.to_dataset() for k, v in tree.children.items() if k != "stuck"}
    assert identity(build(fewer, name="by hand")) != before


# Refusals


@pytest.fixture
def path(tree: xr.DataTree, tmp_path: Path) -> Path:
    path = tmp_path / "model.nc"
    save(tree, path)
    return path


@pytest.mark.parametrize("kept", [8, 100, 0.3, 0.7, -100, -1])
def test_a_truncated_file(path: Path, kept: float) -> None:
    data = path.read_bytes()
    length = int(kept * len(data)) if 0 < kept < 1 else int(kept)
    path.write_bytes(data[:length])
    with pytest.raises(ModelError, match=r"model\.nc' cannot be read as a device model: .*damaged; make it again"):
        open_device(path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"voltage,current\n0.1,1e-6\n", b"CDF\x01" + bytes(100)])
def test_what_is_no_netcdf_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.nc' is no netCDF-4 file: it starts with .*expected a device model"):
        open_device(path)


def test_a_foreign_netcdf_file(path: Path) -> None:
    xr.Dataset({"x": ("t", np.arange(3.0))}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(
        ModelError, match=r"model\.nc' is no device model of calib: found no attribute 'schema', expected"
    ):
        open_device(path)
    xr.Dataset(attrs={"schema": "calib-measurement/1"}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ModelError, match=r"found schema 'calib-measurement/1', expected 'calib-device-model/1'"):
        open_device(path)


def test_a_newer_schema(tree: xr.DataTree, path: Path) -> None:
    newer = copy.deepcopy(tree)
    newer.attrs["schema"] = "calib-device-model/2"
    files.write_netcdf(newer, path)
    with pytest.raises(
        ModelError, match=r"model\.nc' has schema 'calib-device-model/2'.* reads 'calib-device-model/1'; install"
    ):
        open_device(path)


@pytest.mark.parametrize("name", ["missing.nc", "folder/missing.nc", "folder/missing"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=rf"there is no file '.*{name}'; give a device model"):
        open_device(tmp_path / name)


def test_a_name_that_is_not_bundled() -> None:
    with pytest.raises(ModelError, match=r"there is no bundled device model 'unobtainium'; found: "):
        open_device("unobtainium")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.nc").mkdir()
    with pytest.raises(ModelError, match=r"folder\.nc'"):
        open_device(tmp_path / "folder.nc")


_SPOILT: list[tuple[str, Callable[[xr.Dataset], xr.Dataset], str]] = [
    ("iv", lambda d: d.drop_vars("slope"), r"variable 'iv/slope' is missing"),
    ("iv", lambda d: d.rename(ln_r_mean="x"), r"variable 'iv/ln_r_mean' is missing"),
    ("iv", lambda d: d.assign(slope=d["slope"].T), r"'iv/slope' has dimensions \('parameter', 'state'\), expected"),
    ("iv", lambda d: d.assign(slope=d["slope"] * np.nan), r"'?iv/slope"),
    ("iv", lambda d: d.drop_attrs(deep=False), r"attribute 'reference_voltage' of node 'iv' is missing"),
    ("iv", lambda d: d.drop_vars("parameter"), r"iv/parameter"),
    ("iv", lambda d: d.drop_vars("state"), r"iv/state"),
    ("iv", lambda d: d.drop_vars("quantile"), r"iv/quantile"),
    ("conductance", lambda d: d.assign(g_off=((), "low")), r"'conductance/g_off' has type <U3, expected numbers"),
    ("conductance", lambda d: d.assign(g_off=((), 1.0, {"units": "S"})), r"g_off is 1 S and g_on 0\.0005 S; expected"),
    ("conductance", lambda d: d.assign(g_off=((), np.nan, {"units": "S"})), r"conductance/g_off is nan S"),
    ("conductance", lambda d: d.assign(g_on=((), 5e-4)), r"variable 'conductance/g_on' states no units"),
    ("stuck", lambda d: d.assign(probability=((), 1.5, {"units": "1"})), r"stuck/probability is 1\.5; expected 0 to 1"),
    ("stuck", lambda d: d.drop_vars("conductance"), r"variable 'stuck/conductance' is missing"),
    ("programming", lambda d: d.assign(sigma=-d["sigma"].assign_attrs(units="1")), r"programming/sigma"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("node", "spoil", "message"), _SPOILT, ids=[f"{k}-{item[0]}" for k, item in enumerate(_SPOILT)]
)
def test_what_does_not_conform(
    tree: xr.DataTree, path: Path, node: str, spoil: Callable[[xr.Dataset], xr.Dataset], message: str
) -> None:
    spoilt = changed(tree, node, spoil)
    files.write_netcdf(spoilt, path)
    with pytest.raises(ModelError, match=rf"model\.nc' does not conform to {SCHEMA}: .*{message}"):
        open_device(path)
    with pytest.raises(ModelError, match=r"the device model does not conform"):
        save(spoilt, path)


def test_all_problems_are_named_together(tree: xr.DataTree) -> None:
    spoilt = changed(tree, "iv", lambda d: d.drop_vars(["slope", "intercept"]))
    del spoilt.attrs["name"]
    spoilt.attrs["options"] = "{"
    with pytest.raises(
        ModelError, match=r"'name' of the root is missing; .*'options' .* no JSON; .*iv/intercept.*iv/slope"
    ):
        check(spoilt)


def test_a_model_without_characteristics() -> None:
    with pytest.raises(ModelError, match="it has no characteristic; expected at least one of iv, conductance"):
        build({}, name="empty")


# Writing


def _full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _denied(*_: Any, **__: Any) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def _half_written(self: xr.DataTree, path: Path, **_: Any) -> None:
    Path(path).write_bytes(b"half a file")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("target", "name", "failure", "reason"),
    [
        (xr.DataTree, "to_netcdf", _half_written, "No space left on device"),
        (os, "replace", _full_disk, "No space left on device"),
        (os, "replace", _denied, "Permission denied"),
        (files.tempfile, "mkstemp", _denied, "Permission denied"),
    ],
    ids=["disk full", "disk full at the end", "file held by another program", "folder read-only"],
)
def test_a_failed_save_leaves_the_old_file(
    tree: xr.DataTree, path: Path, monkeypatch: pytest.MonkeyPatch, target: Any, name: str, failure: Any, reason: str
) -> None:
    before = path.read_bytes()
    other = copy.deepcopy(tree)
    other.attrs["name"] = "another"
    monkeypatch.setattr(target, name, failure)
    with pytest.raises(CalibError, match=rf"cannot write '.*model\.nc': {reason}; nothing was changed"):
        save(other, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["model.nc"]
    xr.testing.assert_identical(open_device(path), tree)


def test_a_failure_that_is_not_the_disks_leaves_nothing_either(
    tree: xr.DataTree, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(xr.DataTree, "to_netcdf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tree, path)
    assert [item.name for item in path.parent.iterdir()] == ["model.nc"]


def test_saving_where_a_file_or_folder_is_in_the_way(tree: xr.DataTree, path: Path) -> None:
    with pytest.raises(CalibError, match=r"cannot write '.*model\.nc.new\.nc'"):
        save(tree, path / "new.nc")
    (path.parent / "folder.nc").mkdir()
    with pytest.raises(CalibError, match=r"cannot write '.*folder\.nc': it is a folder; give a file name"):
        save(tree, path.parent / "folder.nc")
    assert sorted(item.name for item in path.parent.iterdir()) == ["folder.nc", "model.nc"]


def test_saving_makes_the_folder(tree: xr.DataTree, tmp_path: Path) -> None:
    save(tree, tmp_path / "new" / "folder" / "model.nc")
    xr.testing.assert_identical(open_device(tmp_path / "new" / "folder" / "model.nc"), tree)


def test_saving_over_a_model_replaces_it(tree: xr.DataTree, fitted: xr.DataTree, path: Path) -> None:
    save(fitted, path)
    xr.testing.assert_identical(open_device(path), fitted)


# The population law and draws from it


def test_the_law_of_one_state(tree: xr.DataTree) -> None:
    law = shape_law(tree, "hrs")
    mean, covariance = law.at(np.log(1e5))
    np.testing.assert_allclose(mean[1], -0.6 + 0.2 * np.log(1e5), rtol=1e-12)
    np.testing.assert_allclose(covariance, dataset(tree, "iv")["covariance"].values[1])
    assert law.parameters == ("c", "gamma")
    assert law.transforms == ("log", "identity")


def test_states_are_blended_in_ln_r(tree: xr.DataTree) -> None:
    """At a centre the state's own law, half way the mean of both, outside the nearest state's line goes on."""
    law = shape_law(tree)
    low, high = np.log(2e3), np.log(1e6)

    def lines(ln_r: float) -> np.ndarray:
        return np.array([0.4 + 0.05 * ln_r, -0.6 + 0.2 * ln_r])

    middle = (low + high) / 2
    at = np.array([low - 2, low, middle, 0.25 * low + 0.75 * high, high, high + 2])
    mean, covariance = law.at(at)
    expected = [lines(low - 2)[0], lines(low)[0], lines(middle).mean(), lines(at[3]) @ [0.25, 0.75], lines(high)[1],
                lines(high + 2)[1]]  # fmt: skip
    np.testing.assert_allclose(mean[:, 1], expected, rtol=1e-12)
    variance = np.array([0.05, 0.2]) ** 2
    weights = np.array([[1, 0], [1, 0], [0.5, 0.5], [0.25, 0.75], [0, 1], [0, 1]])
    np.testing.assert_allclose(covariance[:, 1, 1], weights @ variance, rtol=1e-12)
    assert mean.shape == (6, 2)
    assert law.at(at.reshape(2, 3))[1].shape == (2, 3, 2, 2)


def test_states_may_be_stored_in_any_order(tree: xr.DataTree) -> None:
    turned = changed(tree, "iv", lambda data: data.isel(state=[1, 0]))
    first, second = shape_law(tree), shape_law(turned)
    np.testing.assert_array_equal(first.centres, second.centres)
    np.testing.assert_array_equal(first.covariance, second.covariance)


def test_three_states_are_blended_between_neighbours(tree: xr.DataTree) -> None:
    def third(data: xr.Dataset) -> xr.Dataset:
        middle = data.isel(state=[0]).assign_coords(state=["mid"])
        middle["ln_r_mean"] = middle["ln_r_mean"] * 0 + np.log(5e4)
        middle["intercept"] = middle["intercept"] * 0 + 1.0
        middle["slope"] = middle["slope"] * 0
        return xr.concat(
            [data, middle], dim="state", data_vars="minimal", coords="minimal", compat="override", join="outer"
        )

    law = shape_law(changed(tree, "iv", third))
    assert law.centres.tolist() == sorted(law.centres.tolist())
    np.testing.assert_allclose(law.at(np.log(5e4))[0], 1.0)
    between = (np.log(5e4) + np.log(1e6)) / 2
    np.testing.assert_allclose(law.at(between)[0][1], 0.5 * 1.0 + 0.5 * (-0.6 + 0.2 * between), rtol=1e-12)


def test_a_model_without_law_or_state(tree: xr.DataTree) -> None:
    with pytest.raises(ModelError, match=r"has no state 'level-3'; it has lrs, hrs"):
        shape_law(tree, "level-3")
    without = build({"conductance": device_nodes()["conductance"]}, name="ohmic")
    with pytest.raises(ModelError, match=r"'ohmic' has no I-V law \(node 'iv'\)"):
        sample_devices(without, "lrs", 3, 0)


@pytest.mark.parametrize("state", ["lrs", "hrs"])
def test_an_anchored_draw_has_its_resistance_exactly(tree: xr.DataTree, state: str) -> None:
    ln_r, values = sample_devices(tree, state, 500, seed=3)
    np.testing.assert_allclose(PF.resistance(V_REF, xp=np, **values), np.exp(ln_r), rtol=1e-12)


def test_drawn_parameters_follow_the_law(tree: xr.DataTree) -> None:
    """20000 draws: means within 4 standard errors, standard deviations within 2 % (4 times 0.5 %)."""
    ln_r = np.full(20000, np.log(1e6))
    values = sample_parameters(shape_law(tree), ln_r, np.random.default_rng(5))
    mean = -0.6 + 0.2 * np.log(1e6)
    assert abs(values["gamma"].mean() - mean) < 4 * 0.2 / np.sqrt(20000)
    assert values["gamma"].std() == pytest.approx(0.2, rel=0.02)


def test_the_papers_form_draws_all_parameters(tree: xr.DataTree) -> None:
    """With a covariance of rank one that keeps R, the unconstrained form keeps it as well, here where t is linear."""
    paper = changed(tree, "iv", lambda data: data.assign_attrs(form="paper"))
    ln_r = np.full(2000, np.log(1e6))
    values = sample_parameters(shape_law(paper), ln_r, np.random.default_rng(5))
    np.testing.assert_allclose(PF.resistance(V_REF, xp=np, **values), 1e6, rtol=1e-6)
    assert values["gamma"].std() == pytest.approx(0.2, rel=0.07)


def test_drawn_resistances_follow_the_quantiles(tree: xr.DataTree) -> None:
    """The distribution function at the draws is uniform: Kolmogorov's distance for 20000 draws, 1.95 / sqrt(n)."""
    node = dataset(tree, "iv").sel(state="hrs")
    drawn = np.sort(sample_resistance(tree, "hrs", 20000, np.random.default_rng(0)))
    uniform = np.interp(drawn, node["ln_r_quantile"].values, node["quantile"].values)
    distance = np.abs(uniform - (np.arange(20000) + 0.5) / 20000).max()
    assert distance < 1.95 / np.sqrt(20000)
    assert drawn[0] >= float(node["ln_r_min"])
    assert drawn[-1] <= float(node["ln_r_max"])


def test_the_same_seed_draws_the_same_devices(tree: xr.DataTree) -> None:
    first, second, other = (sample_devices(tree, "lrs", 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1]["gamma"], second[1]["gamma"])
    assert (first[0] != other[0]).all()


def test_a_fitted_model_draws_what_was_fitted(fitted: xr.DataTree) -> None:
    ln_r, values = sample_devices(fitted, "hrs", 4000, seed=0)
    node = dataset(fitted, "iv").sel(state="hrs")
    assert ln_r.mean() == pytest.approx(float(node["ln_r_mean"]), abs=4 * float(node["ln_r_std"]) / np.sqrt(22))
    np.testing.assert_allclose(PF.resistance(V_REF, xp=np, **values), np.exp(ln_r), rtol=1e-12)
    assert json.loads(fitted.attrs["options"])["v_max"] == 0.5
