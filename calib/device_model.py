"""The DeviceModel contract: build, check, identify, save and open.

A device model is an `xarray.DataTree` of flat nodes, one per characteristic, any subset of which may be present:

========== ==========================================================================================
iv         population law: per state the distribution of ln R, and the law's parameters given ln R
conductance conductance range G_off, G_on, and tables per state and read voltage
programming lognormal spread of the resistance that programming leaves
stuck      probability and conductances of devices that do not switch
validation coverage of the model's predictive intervals on devices that it was not fitted to
examples   thinned measured curves, for figures
========== ==========================================================================================

Every estimate has its standard error (`<name>_stderr`) or interval (`<name>_bound`, dimension `bound`) and its sample
size beside it. The file is netCDF-4 and holds data only.
"""

import datetime
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import __version__, data_folder, files
from calib.errors import CalibError, ModelError
from calib.model_contract import REQUIRED, REQUIRED_ATTRS, TEXT

SCHEMA = "calib-device-model/1"
STATE_ORDER = ("lrs", "hrs")

_ROOT_ATTRS = (
    "schema",
    "name",
    "calib_version",
    "created",
    "citation",
    "assumptions",
    "warnings",
    "options",
    "sources",
)
_JSON_ATTRS = ("assumptions", "warnings", "options", "sources")
_VOLATILE = ("created", "calib_version")


@dataclass(frozen=True)
class ShapeLaw:
    """The population law of a device model as plain arrays, states sorted by their centre in ln R.

    Attributes
    ----------
    iv_model : name of the conduction law.
    form : 'anchored' (shape drawn given ln R, scale solved) or 'paper' (all parameters drawn given ln R).
    reference_voltage : V_ref [V] of R = V_ref / I(V_ref).
    parameters : names of the law's parameters, the order of the arrays' last dimensions.
    transforms : 'log' or 'identity' per parameter: t = transform(theta).
    centres : (state,) mean ln(R / Ohm) of each state.
    intercept, slope : (state, parameter): E[t] = intercept + slope ln(R / Ohm).
    covariance : (state, parameter, parameter) of t about its line.
    ln_r_min, ln_r_max : range of ln R that the data cover.
    v_min, v_max : range of |V| [V] that the data cover.
    """

    iv_model: str
    form: str
    reference_voltage: float
    parameters: tuple[str, ...]
    transforms: tuple[str, ...]
    centres: np.ndarray
    intercept: np.ndarray
    slope: np.ndarray
    covariance: np.ndarray
    ln_r_min: float
    ln_r_max: float
    v_min: float
    v_max: float

    def at(self, ln_r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean (..., parameter) and covariance (..., parameter, parameter) of t at ln R.

        Between the centres of two states both are interpolated linearly in ln R; outside, the nearest state's law
        holds.
        """
        ln_r = np.asarray(ln_r, dtype=float)
        lines = self.intercept + self.slope * ln_r[..., None, None]  # (..., state, parameter)
        if len(self.centres) == 1:
            shape = (*ln_r.shape, *self.covariance.shape[1:])
            return lines[..., 0, :], np.broadcast_to(self.covariance[0], shape)
        upper = np.clip(np.searchsorted(self.centres, ln_r), 1, len(self.centres) - 1)
        lower = upper - 1
        weight = np.clip((ln_r - self.centres[lower]) / (self.centres[upper] - self.centres[lower]), 0.0, 1.0)
        w = weight[..., None]
        low = np.take_along_axis(lines, lower[..., None, None], axis=-2)[..., 0, :]
        high = np.take_along_axis(lines, upper[..., None, None], axis=-2)[..., 0, :]
        covariance = (1 - w[..., None]) * self.covariance[lower] + w[..., None] * self.covariance[upper]
        return (1 - w) * low + w * high, covariance


def shape_law(tree: xr.DataTree, state: str | None = None) -> ShapeLaw:
    """Return the population law of a device model, of all its states or of one.

    Raises
    ------
    ModelError
        When the model has no iv node, or not that state.
    """
    if "iv" not in tree.children:
        raise ModelError(f"the device model '{tree.attrs.get('name', '')}' has no I-V law (node 'iv')")
    node = tree["iv"].to_dataset()
    if state is not None:
        if state not in node["state"].values:
            raise ModelError(f"the device model has no state '{state}'; it has {', '.join(node['state'].values)}")
        node = node.sel(state=[state])
    centres, intercept, slope, covariance = _lines(node)
    return ShapeLaw(
        iv_model=node.attrs["iv_model"],
        form=node.attrs["form"],
        reference_voltage=abs(float(node.attrs["reference_voltage"])),
        parameters=tuple(str(name) for name in node["parameter"].values),
        transforms=tuple(str(name) for name in node["transform"].values[0]),
        centres=centres,
        intercept=intercept,
        slope=slope,
        covariance=covariance,
        ln_r_min=float(node["ln_r_min"].min()),
        ln_r_max=float(node["ln_r_max"].max()),
        v_min=float(node.attrs["v_min"]),
        v_max=float(node.attrs["v_max"]),
    )


def _lines(node: xr.Dataset) -> tuple[np.ndarray, ...]:
    """Return centre, intercept, slope and covariance of each line, sorted by centre.

    A state whose line breaks at some resistance has the lines of its two regimes.
    """
    rows = [node[key].values.astype(float) for key in ("ln_r_mean", "intercept", "slope", "covariance")]
    if "regime_state" in node:
        split = np.isin(node["state"].values, node["regime_state"].values)
        part = node.isel(segment=np.flatnonzero(np.isin(node["regime_state"].values, node["state"].values)))
        keys = ("regime_centre", "regime_intercept", "regime_slope", "regime_covariance")
        rows = [np.concatenate([row[~split], part[key].values]) for row, key in zip(rows, keys, strict=True)]
    order = np.argsort(rows[0], kind="stable")
    return tuple(row[order] for row in rows)


def build(
    nodes: dict[str, xr.Dataset],
    *,
    name: str,
    citation: str = "",
    technology: str = "",
    license: str = "",
    assumptions: list[str] | None = None,
    warnings: list[str] | None = None,
    options: dict[str, Any] | None = None,
    sources: list[dict[str, str]] | None = None,
) -> xr.DataTree:
    """Put nodes together to a device model and check it."""
    tree = xr.DataTree.from_dict({f"/{key}": value for key, value in nodes.items()})
    tree.attrs = {
        "schema": SCHEMA,
        "name": name,
        "technology": technology,
        "citation": citation,
        "license": license,
        "calib_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "assumptions": json.dumps(assumptions or [], ensure_ascii=False),
        "warnings": json.dumps(warnings or [], ensure_ascii=False),
        "options": json.dumps(options or {}, sort_keys=True, ensure_ascii=False),
        "sources": json.dumps(sources or [], sort_keys=True, ensure_ascii=False),
    }
    check(tree)
    return tree


def attribute(tree: xr.DataTree, key: str) -> Any:
    """Return a root attribute, decoded where it is JSON (assumptions, warnings, options, sources)."""
    value = tree.attrs.get(key, "[]" if key in _JSON_ATTRS else "")
    return json.loads(value) if key in _JSON_ATTRS else value


def check(tree: xr.DataTree, path: str | Path = "") -> None:
    """Check a device model against its contract; all problems are collected and raised together.

    Raises
    ------
    ModelError
        Naming each node and variable that does not conform, what was found and what was expected.
    """
    where = f"'{path}'" if path else "the device model"
    schema = str(tree.attrs.get("schema", ""))
    if schema != SCHEMA:
        raise ModelError(_schema_problem(schema, where))
    problems = [f"attribute '{key}' of the root is missing" for key in _ROOT_ATTRS if key not in tree.attrs]
    for key in _JSON_ATTRS:
        try:
            json.loads(tree.attrs.get(key, "[]"))
        except (TypeError, ValueError):
            problems.append(f"attribute '{key}' of the root is no JSON")
    if not tree.children:
        problems.append(f"it has no characteristic; expected at least one of {', '.join(REQUIRED)}")
    for node_name, node in tree.children.items():
        problems += _node_problems(str(node_name), node.to_dataset())
    if problems:
        raise ModelError(f"{where} does not conform to {SCHEMA}: {'; '.join(problems)}")


def _schema_problem(schema: str, where: str) -> str:
    family, _, _ = schema.rpartition("/")
    if family == SCHEMA.rpartition("/")[0]:
        return (
            f"{where} has schema '{schema}', this is calib {__version__}, which reads '{SCHEMA}'; "
            "install a newer calib (pip install --upgrade calib-memristor)"
        )
    found = f"schema '{schema}'" if schema else "no attribute 'schema'"
    return f"{where} is no device model of calib: found {found}, expected '{SCHEMA}'; make one with 'calib fit'"


def _node_problems(name: str, node: xr.Dataset) -> list[str]:
    problems = []
    for key in REQUIRED_ATTRS.get(name, ()):
        if key not in node.attrs:
            problems.append(f"attribute '{key}' of node '{name}' is missing")
    for variable, dims in REQUIRED.get(name, {}).items():
        if variable not in node:
            problems.append(f"variable '{name}/{variable}' is missing")
        elif node[variable].dims != dims:
            problems.append(f"variable '{name}/{variable}' has dimensions {node[variable].dims}, expected {dims}")
        elif variable not in TEXT and node[variable].dtype.kind not in "fiu":
            problems.append(f"variable '{name}/{variable}' has type {node[variable].dtype}, expected numbers")
    for variable in node.data_vars:
        kind = node[variable].dtype.kind
        if kind in "fiu" and "units" not in node[variable].attrs and not str(variable).startswith("n_"):
            problems.append(f"variable '{name}/{variable}' states no units")
    return problems or _value_problems(name, node)


def _value_problems(name: str, node: xr.Dataset) -> list[str]:
    problems = []
    if name == "conductance":
        off, on = float(node["g_off"]), float(node["g_on"])
        if not 0 < off < on < np.inf:
            problems.append(f"conductance/g_off is {off:g} S and g_on {on:g} S; expected 0 < g_off < g_on")
    if name == "stuck" and not 0 <= float(node["probability"]) <= 1:
        problems.append(f"stuck/probability is {float(node['probability']):g}; expected 0 to 1")
    if name == "programming" and bool((node["sigma"] < 0).any()):
        problems.append("programming/sigma is negative; expected a standard deviation of ln R")
    if name == "iv":
        finite = [v for v in ("intercept", "slope", "covariance", "ln_r_mean") if not np.isfinite(node[v]).all()]
        problems += [f"iv/{variable} holds values that are not finite" for variable in finite]
    return problems


def identity(tree: xr.DataTree) -> str:
    """Return the SHA-256 of a model's sorted content, without when and by which version it was made."""
    digest = hashlib.sha256()
    for key in sorted(map(str, tree.attrs)):
        if key not in _VOLATILE:
            digest.update(f"{key}={tree.attrs[key]!s}\n".encode())
    for node_name in sorted(tree.children):
        node = tree[node_name].to_dataset()
        digest.update(f"[{node_name}]{json.dumps(_plain(node.attrs), sort_keys=True)}\n".encode())
        for variable in sorted(map(str, node.variables)):
            array = node[variable]
            digest.update(f"{variable}{array.dims}{json.dumps(_plain(array.attrs), sort_keys=True)}".encode())
            values = array.values
            if values.dtype.kind in "fiu":
                digest.update(values.astype("<f8" if values.dtype.kind == "f" else "<i8").tobytes())
            else:
                digest.update(json.dumps([str(v) for v in values.ravel()]).encode())
    return digest.hexdigest()


def _plain(attrs: dict[Any, Any]) -> dict[str, Any]:
    return {str(k): v.item() if hasattr(v, "item") else v for k, v in attrs.items()}


def save(tree: xr.DataTree, path: str | Path) -> None:
    """Check a device model and write it to `path` as netCDF-4, atomically."""
    check(tree)
    files.write_netcdf(tree, path)


save_device = save


def open_device(name_or_path: str | Path) -> xr.DataTree:
    """Open a device model: a path, or the name of a bundled model (`calib models list`).

    Raises
    ------
    ModelError
        When there is no such file or model, or it is damaged, foreign, or of a newer schema.
    """
    path = Path(name_or_path)
    if not path.exists():
        if path.suffix == ".nc" or len(path.parts) > 1:
            raise ModelError(f"there is no file '{path}'; give a device model made by 'calib fit', or a bundled name")
        try:
            path = data_folder.bundled_model_path(str(name_or_path))
        except CalibError as error:
            raise ModelError(str(error)) from error
    tree = files.open_netcdf(path, "device model", "make it again with 'calib fit'")
    check(tree, path)
    return tree
