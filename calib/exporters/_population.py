"""A device model's population as a circuit needs it: the law's parameters from a conductance and normal deviates.

The calculation is a list of `Step`s in the language of cards. It is written into a SPICE subcircuit and a Verilog-A
module, and run here for the devices that a card draws, so that all three are the same device. It is that of
`calib.nonidealities.iv`: with R the device's resistance after programming,

    t_j = intercept_j + slope_j ln R + sum_k L_jk z_k,    theta_j = t_j or exp(t_j),    L L^T = covariance,

ln R held to the range of the data, z to +-4 and theta to its bounds; between the centres of two states intercepts,
slopes and covariances are interpolated linearly in ln R. In the anchored form theta is the law's shape, and its scale
follows from I(V_ref) = V_ref / R in closed form.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.characteristics import median_resistance
from calib.device_model import ShapeLaw, shape_law
from calib.errors import ModelError
from calib.exporters._expressions import VOLTAGE, Step, number, run, substitute
from calib.exporters.base import slug
from calib.iv_models import IVModel, iv_model
from calib.iv_models._series import LARGEST_SHARE

CONDUCTANCE, SPREAD, SPREAD_DEVIATE = "G", "spread", "zr"
DEVIATE_LIMIT = 4.0
"""As calib.nonidealities.base.Z_MAX: deviates beyond are held."""
LAW = "law_"
"""Before the names of the law's parameters, which differ from a card's own by case alone or not at all (g, n)."""
_DEVICE = "g_device"
_RANK = 1e-9  # of a standard deviation: below it, a covariance leaves a parameter no spread of its own


@dataclass(frozen=True)
class Input:
    """A parameter of the subcircuit or module that a user sets; `default` is a number, `meaning` one line."""

    name: str
    unit: str
    default: float
    meaning: str


@dataclass(frozen=True)
class Population:
    """What a card of a device model needs.

    Attributes
    ----------
    law : the conduction law.
    shape_law : the population law; None where the model has none, the device being a resistor.
    inputs : the conductance first, then the deviates.
    steps : from the inputs to the law's parameters, which are the last steps, named `LAW` + name.
    typical : (state, conductance [S]) of the typical device of each state.
    """

    law: IVModel
    shape_law: ShapeLaw | None
    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    typical: tuple[tuple[str, float], ...]

    @property
    def deviates(self) -> tuple[str, ...]:
        """Names of the deviates of the law's parameters."""
        return tuple(found.name for found in self.inputs if found.name not in (CONDUCTANCE, SPREAD, SPREAD_DEVIATE))

    @property
    def has_spread(self) -> bool:
        """Whether the model knows how far programming lands from its target."""
        return any(found.name == SPREAD for found in self.inputs)

    def parameters(self, conductance: np.ndarray, **deviates: np.ndarray | float) -> dict[str, np.ndarray]:
        """Return the law's parameters of devices of `conductance` [S]; inputs that are not given are zero."""
        found = self._run(conductance, deviates)
        like = np.zeros(np.shape(conductance))
        return {name: found[LAW + name] + like for name in self.law.parameter_names}

    def conductance(self, target: np.ndarray, **deviates: np.ndarray | float) -> np.ndarray:
        """Return the conductance [S] that programming leaves of its target."""
        found = self._run(target, deviates)
        return found.get(_DEVICE, found[CONDUCTANCE]) + np.zeros(np.shape(target))

    def _run(self, conductance: np.ndarray, deviates: dict[str, np.ndarray | float]) -> dict[str, np.ndarray]:
        values = {found.name: 0.0 for found in self.inputs} | deviates
        return run(self.steps, values | {CONDUCTANCE: np.asarray(conductance, dtype=float)})


def population(tree: xr.DataTree) -> Population:
    """Return the population of a device model; without an I-V law, of linear resistors.

    Raises
    ------
    ModelError
        When the model has neither an I-V law nor a conductance, or a law whose scale has no closed form.
    """
    typical = typical_conductances(tree)
    if not typical:
        raise ModelError(
            f"the device model '{tree.attrs.get('name', '')}' has no I-V law, conductance range or programming spread; "
            "a circuit needs one of them"
        )
    law = shape_law(tree) if "iv" in tree.children else None
    model = iv_model(law.iv_model if law else "ohmic")
    inputs = [Input(CONDUCTANCE, "S", typical[0][1], "conductance at the reference voltage")]
    steps = []
    sigma = _programming(tree)
    device_g = CONDUCTANCE
    if sigma:
        device_g = _DEVICE
        steps += _programming_steps(sigma)
        inputs += [
            Input(SPREAD, "1", 0.0, "programming spread: 0 leaves G exact, 1 is the measured one"),
            Input(SPREAD_DEVIATE, "1", 0.0, "normal deviate of ln R, used with spread"),
        ]
    if law is None or not (model.shape or law.form == "paper"):
        steps.append(Step(LAW + model.scale, device_g))
        return Population(model, law, tuple(inputs), tuple(steps), typical)
    drawn = list(model.shape) if law.form == "anchored" else list(model.parameter_names)
    found, deviates = _line_steps(law, drawn, device_g)
    inputs += deviates
    steps += found + _bounded(law, model, drawn, device_g)
    if law.form == "anchored":
        steps += _anchor(law, model, device_g)
    return Population(model, law, tuple(inputs), tuple(steps), typical)


def typical_conductances(tree: xr.DataTree) -> tuple[tuple[str, float], ...]:
    """Return (label, conductance [S]): the median of each state, else of its programming, else G_on and G_off."""
    if "iv" in tree.children:
        node = tree["iv"].to_dataset()
        return tuple((str(state), 1 / median_resistance(node, str(state))) for state in node["state"].values)
    if "programming" in tree.children:
        node = tree["programming"].to_dataset()
        values = zip(node["state"].values, node["r_median"].values, strict=True)
        return tuple((str(state), 1 / float(r)) for state, r in values if r > 0)
    if "conductance" in tree.children:
        node = tree["conductance"].to_dataset()
        return (("on", float(node["g_on"])), ("off", float(node["g_off"])))
    return ()


def labels(typical: Sequence[tuple[str, float]]) -> list[str]:
    """Return an identifier's end for each state, all different, and none of them that of the law's subcircuit."""
    found = ["law"]
    for state, _ in typical:
        stem = slug(state).replace("-", "_")
        found.append(next(name for name in _numbered(stem) if name not in found))
    return found[1:]


def identifier(tree: xr.DataTree) -> str:
    """Return the name of a model's subcircuit and module: its slug behind `calib_`, so that no keyword is met."""
    return "calib_" + slug(str(tree.attrs.get("name", ""))).replace("-", "_")


def _numbered(stem: str) -> itertools.chain[str]:
    return itertools.chain([stem], (f"{stem}_{k}" for k in itertools.count(2)))


def _programming(tree: xr.DataTree) -> list[tuple[float, float]]:
    """Return (R, sigma of ln R), by R, empty where the model knows of no spread."""
    if "programming" not in tree.children:
        return []
    node = tree["programming"].to_dataset()
    pairs = {float(r): float(s) for r, s in zip(node["r_median"].values, node["sigma"].values, strict=True)}
    pairs = {r: s for r, s in pairs.items() if math.isfinite(r) and math.isfinite(s)}
    return sorted(pairs.items()) if any(pairs.values()) else []


def _programming_steps(pairs: list[tuple[float, float]]) -> list[Step]:
    """R exp(sigma z - sigma^2 / 2), sigma linear in R between the states, as calib.nonidealities.lognormal."""
    steps = [Step("r_target", f"1/{CONDUCTANCE}")]
    shares = []
    for k, ((low, _), (high, _)) in enumerate(itertools.pairwise(pairs), 1):
        width = number(high - low)
        steps.append(Step(f"share_{k}", f"min(max((r_target - {number(low)})/{width}, 0), 1)"))
        shares.append(f"share_{k}")
    steps += [
        Step("sigma", f"{SPREAD}*({_blend([sigma for _, sigma in pairs], shares)})"),
        Step("zr_held", _held(SPREAD_DEVIATE)),
        Step(_DEVICE, f"{CONDUCTANCE}*exp(sigma*(sigma/2 - zr_held))"),
    ]
    return steps


def _line_steps(law: ShapeLaw, drawn: list[str], device_g: str) -> tuple[list[Step], list[Input]]:
    """Return the steps up to t of each drawn parameter, and the deviates that they use."""
    at = [law.parameters.index(name) for name in drawn]
    x = f"-log({device_g})"
    if math.isfinite(law.ln_r_min) and math.isfinite(law.ln_r_max):
        x = f"min(max({x}, {number(law.ln_r_min)}), {number(law.ln_r_max)})"
    steps = [Step("ln_r", x)]
    weights = []
    for k, (low, high) in enumerate(itertools.pairwise(law.centres.tolist()), 1):
        steps.append(Step(f"weight_{k}", f"min(max((ln_r - {number(low)})/{number(high - low)}, 0), 1)"))
        weights.append(f"weight_{k}")
    covariance = law.covariance[:, at][:, :, at]  # (state, parameter, parameter)
    if len(weights) == 0:
        roots, more = _fixed_root(covariance[0]), []
    else:
        roots, more = _blended_root(covariance, weights)
    steps += more
    scattering = sorted({k for _, k in roots})
    deviates = []
    for n, k in enumerate(scattering, 1):
        meaning = f"normal deviate of {drawn[k]}" + (" given those before" if n > 1 else "")
        deviates.append(Input(f"z{n}", "1", 0.0, meaning))
        steps.append(Step(f"z{n}_held", _held(f"z{n}")))
    for j, index in enumerate(at):
        line = _blend(law.intercept[:, index], weights)
        if law.slope[:, index].any():
            line += f" + ({_blend(law.slope[:, index], weights)})*ln_r"
        terms = [f"({roots[j, k]})*z{n}_held" for n, k in enumerate(scattering, 1) if (j, k) in roots]
        steps.append(Step(f"t_{drawn[j]}", " + ".join([line, *terms])))
    return steps, deviates


def _fixed_root(covariance: np.ndarray) -> dict[tuple[int, int], str]:
    """Return the lower triangular root of a covariance, of any rank, without its zeros."""
    n = len(covariance)
    root = np.zeros((n, n))
    for k in range(n):
        rest = covariance[k, k] - root[k, :k] @ root[k, :k]
        if rest > (_RANK**2) * covariance[k, k]:
            root[k, k] = math.sqrt(rest)
            root[k + 1 :, k] = (covariance[k + 1 :, k] - root[k + 1 :, :k] @ root[k, :k]) / root[k, k]
    return {(j, k): number(root[j, k]) for j in range(n) for k in range(j + 1) if root[j, k] != 0}


def _blended_root(covariance: np.ndarray, weights: list[str]) -> tuple[dict[tuple[int, int], str], list[Step]]:
    """Return the names of the entries of the root of the states' blended covariance, and their steps."""
    n = covariance.shape[-1]
    alive = [k for k in range(n) if covariance[:, k, k].max() > 0]
    steps: list[Step] = []
    roots: dict[tuple[int, int], str] = {}
    for k in alive:
        least = number(_RANK * math.sqrt(covariance[:, k, k].max()))
        for j in (j for j in alive if j >= k):
            known = "".join(f" - root_{j + 1}_{m + 1}*root_{k + 1}_{m + 1}" for m in alive if m < k)
            rest = f"{_blend(covariance[:, j, k], weights)}{known}"
            name = f"root_{j + 1}_{k + 1}"
            diagonal = f"sqrt(max({rest}, 0))"
            steps.append(Step(name, diagonal if j == k else f"({rest})/max(root_{k + 1}_{k + 1}, {least})"))
            roots[j, k] = name
    return roots, steps


def _bounded(law: ShapeLaw, model: IVModel, drawn: list[str], device_g: str) -> list[Step]:
    """Return the steps from t to the law's parameters within their bounds."""
    steps = []
    for name in drawn:
        log = law.transforms[law.parameters.index(name)] == "log"
        text = f"exp(t_{name})" if log else f"t_{name}"
        parameter = model.parameter(name)
        if math.isfinite(parameter.lower) and not (log and parameter.lower <= 0):
            text = f"max({text}, {number(parameter.lower)})"
        if math.isfinite(parameter.upper):
            text = f"min({text}, {number(parameter.upper)})"
        if name == model.series and law.form == "anchored":
            text = f"min({text}, {number(LARGEST_SHARE)}/{device_g})"
        steps.append(Step(LAW + name, text))
    return steps


def _anchor(law: ShapeLaw, model: IVModel, device_g: str) -> list[Step]:
    """Return the steps to the scale that makes I(V_ref) = V_ref G exact; a series resistance leaves V_ref (1 - r G)."""
    if not (model.scale_is_factor or model.series):
        raise ModelError(
            f"the scale of the law '{model.name}' is no factor of its current, so it has no closed form for a circuit; "
            "export another format, or fit another law (--iv-model)"
        )
    v_ref = number(law.reference_voltage)
    inner = f"{v_ref}*(1 - {LAW}{model.series}*{device_g})" if model.series else v_ref
    replacements = {name: LAW + name for name in model.shape} | {model.scale: "1.0", VOLTAGE: "v_anchor"}
    return [
        Step("v_anchor", inner),
        Step("i_anchor", substitute(model.expression, replacements)),
        Step(LAW + model.scale, f"{v_ref}*{device_g}/i_anchor"),
    ]


def _held(name: str) -> str:
    return f"min(max({name}, -{number(DEVIATE_LIMIT)}), {number(DEVIATE_LIMIT)})"


def _blend(values: Sequence[float] | np.ndarray, weights: Sequence[str]) -> str:
    """Return values interpolated between neighbours, as text; equal ones need no weight."""
    values = [float(value) for value in values]
    steps = (
        f" + ({number(high - low)})*{weight}"
        for (low, high), weight in zip(itertools.pairwise(values), weights, strict=True)
        if high != low
    )
    return number(values[0]) + "".join(steps)
