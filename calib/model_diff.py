"""What differs between two device models, and whether it is more than their uncertainty.

Every estimate that both models hold is compared, d = b - a. Where both have a standard error and a symmetric interval,
the combined standard error is s = sqrt(s_a^2 + s_b^2), z = d / s, and the tails are Student's with the degrees of
freedom of Welch and Satterthwaite (those of each estimate follow from how much wider than 1.96 standard errors its
interval is). Where the sides of an interval (l, u) are unequal (exact binomial, bootstrap, a spread), the interval of d
is (MOVER; Zou and Donner 2008, 10.1002/sim.3095, equation 1)

    L = d - sqrt((b - l_b)^2 + (u_a - a)^2),    U = d + sqrt((u_b - b)^2 + (a - l_a)^2),

and z is 1.96 times d over the side towards zero, with normal tails. `z` is given on the normal scale in both cases:
p = 2 Phi(-|z|).

Many estimates are compared at once, and they depend on one another (an intercept and a slope, a total and its parts).
Holm's step-down procedure (Scandinavian Journal of Statistics 6, 65-70, 1979) holds under any dependence: of two
measurements of the same population, at most 5 in 100 pairs give any estimate 'more than their uncertainty'.

Both fits must come from different measurements. Models of the same source files (and of the same population of them)
are not independent: what differs is then the doing of the options, and the intervals say nothing about it.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from calib import characteristics as c
from calib.characteristics.base import Section, known
from calib.device_model import attribute, check, identity, open_device
from calib.errors import OptionError
from calib.exporters._text import one_line
from calib.formatting import format_interval, format_number, format_quantity, plural
from calib.state_names import state_name

LEVEL = 0.05
"""Probability that two measurements of one population differ in any estimate by 'more than their uncertainty'."""
_TEXTS = ("name", "technology", "citation", "license")
_POPULATION = ("5 to 95 %",)
"""How the kinds of interval begin that hold a share of the population, not the uncertainty of an estimate."""


@dataclass(frozen=True)
class Difference:
    """One estimate of two models.

    Attributes
    ----------
    characteristic, state, quantity, label, unit : as of `calib.characteristics.base.Estimate`.
    a, b : the two values; difference is b - a.
    low, high : 95 % interval of the difference, NaN where a model states no uncertainty.
    z : difference over its standard error, towards zero; NaN where not known.
    p : probability of such a difference between two measurements of one population; p_holm the same for all
        comparisons together.
    more_than_uncertainty : whether p_holm is below `LEVEL`; None where an uncertainty is not known.
    n_a, n_b, validity_a, validity_b : sample size and range of validity in words.
    """

    characteristic: str
    state: str
    quantity: str
    label: str
    unit: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    z: float
    p: float
    p_holm: float
    more_than_uncertainty: bool | None
    n_a: str
    n_b: str
    validity_a: str
    validity_b: str


@dataclass(frozen=True)
class ModelDiff:
    """What differs between two device models.

    Attributes
    ----------
    models : name, identity and I-V law of both.
    identical : whether their content is the same.
    shared_sources : source files that both were fitted to.
    differences : every estimate that both have.
    not_comparable : estimates of both that mean different things: characteristic, state, quantity, a, b (labels), why.
    only_a, only_b : labels of the estimates of one model.
    texts, options, sources : what is not the same in them, as rows of (key, in a, in b).
    warnings : sentences on the comparison itself.
    level : of the decision, over all comparisons together.
    """

    models: tuple[dict[str, str], dict[str, str]]
    identical: bool
    shared_sources: tuple[str, ...]
    differences: tuple[Difference, ...]
    not_comparable: tuple[dict[str, str], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    texts: tuple[tuple[str, str, str], ...]
    options: tuple[tuple[str, str, str], ...]
    sources: tuple[tuple[str, str, str], ...]
    warnings: tuple[str, ...]
    level: float = LEVEL

    @property
    def changed(self) -> list[Difference]:
        """The differences that are more than their uncertainty, the surest first."""
        return sorted((d for d in self.differences if d.more_than_uncertainty), key=lambda d: d.p)

    @property
    def statement(self) -> str:
        """What was found, in one sentence."""
        if self.identical:
            return "the two models are identical"
        judged = sum(d.more_than_uncertainty is not None for d in self.differences)
        if not judged:
            return "no estimate of both models states its uncertainty, so that no difference can be judged"
        return (
            f"{len(self.changed)} of {plural(judged, 'estimate')} that both models have with their uncertainty "
            f"{'differs' if len(self.changed) == 1 else 'differ'} by more than their uncertainty (Holm over {judged} "
            f"comparisons, {100 * self.level:g} % in all)"
        )


def diff(a: xr.DataTree | str | Path, b: xr.DataTree | str | Path, *, level: float = LEVEL) -> ModelDiff:
    """Compare two device models, estimate by estimate.

    Parameters
    ----------
    a, b : device models, their files, or names of bundled ones; differences are b - a.
    level : probability of calling any difference 'more than their uncertainty' where the populations are the same.

    Raises
    ------
    OptionError
        When the level is not between 0 and 1.
    ModelError
        When a model cannot be opened.
    """
    if not 0 < level < 1:
        raise OptionError(f"level is {level:g}; expected a probability between 0 and 1, such as {LEVEL:g}")
    trees = tuple(_opened(model) for model in (a, b))
    first, second = (_estimates(tree) for tree in trees)
    both = [key for key in first if key in second]
    reasons = {key: _why_not(key, first[key], second[key], trees) for key in both}
    pairs = [
        _at_common_resistance(first[key], second[key], trees) for key in both if not reasons[key]
    ]  # fmt: skip
    shared = _shared_sources(trees)
    return ModelDiff(
        models=tuple(_model(tree) for tree in trees),  # type: ignore[arg-type]
        identical=identity(trees[0]) == identity(trees[1]),
        shared_sources=shared,
        differences=tuple(_judged([_difference(x, y) for x, y in pairs], level)),
        not_comparable=tuple(
            {**_key(key), "a": first[key].label, "b": second[key].label, "why": reasons[key]}
            for key in both
            if reasons[key]
        ),
        only_a=tuple(_words(item) for key, item in first.items() if key not in second),
        only_b=tuple(_words(item) for key, item in second.items() if key not in first),
        texts=_changes(*({key: str(tree.attrs.get(key, "")) for key in _TEXTS} for tree in trees)),
        options=_changes(*(_options(tree) for tree in trees)),
        sources=_source_rows(trees),
        warnings=tuple(_warnings(trees, shared)),
        level=level,
    )


def as_json(found: ModelDiff) -> dict[str, Any]:
    """Return a comparison as plain values; the keys are listed by `calib diff --help`."""
    rows = {key: [dict(zip(("key", "a", "b"), row, strict=True)) for row in getattr(found, key)]
            for key in ("texts", "options", "sources")}  # fmt: skip
    return {
        "schema": "calib-diff/1",
        "statement": found.statement,
        "identical": found.identical,
        "level": found.level,
        "models": list(found.models),
        "differences": [asdict(item) for item in found.differences],
        "not_comparable": list(found.not_comparable),
        "only_a": list(found.only_a),
        "only_b": list(found.only_b),
        "shared_sources": list(found.shared_sources),
        "warnings": list(found.warnings),
        **rows,
    }


def sections(found: ModelDiff, *, every: bool = True) -> list[Section]:
    """Return a comparison as tables: the surest differences first; `every` False leaves out what does not differ."""
    shown = found.changed + ([d for d in found.differences if not d.more_than_uncertainty] if every else [])
    made = [Section("Estimates", ("of", "quantity", "a", "b", "difference, 95 %", "z", "more than their uncertainty"),
                    tuple(_row(item) for item in shown), (found.statement,))]  # fmt: skip
    unlike = tuple((_place(row["characteristic"], row["state"]), row["a"], row["b"], row["why"])
                   for row in found.not_comparable)  # fmt: skip
    made.append(Section("Not comparable", ("of", "a", "b", "why"), unlike))
    for title, rows in (("Texts", found.texts), ("Options", found.options), ("Source files", found.sources)):
        made.append(Section(f"{title} that differ", ("", "a", "b"), rows))
    for title, labels in (("Only in a", found.only_a), ("Only in b", found.only_b)):
        made.append(Section(title, ("estimate",), tuple((label,) for label in labels)))
    return [_visible(section) for section in made if section.rows or section.notes]


def _visible(section: Section) -> Section:
    """Return a section without characters that would steer a terminal."""
    return replace(section, rows=tuple(tuple(map(one_line, row)) for row in section.rows))


def _opened(model: xr.DataTree | str | Path) -> xr.DataTree:
    if isinstance(model, str | Path):
        return open_device(model)
    check(model)
    return model


_Key = tuple[str, str, str]


def _estimates(tree: xr.DataTree) -> dict[_Key, c.Estimate]:
    return {(e.characteristic, e.state, e.quantity): e for e in known(c.estimates(tree))}


def _key(key: _Key) -> dict[str, str]:
    return dict(zip(("characteristic", "state", "quantity"), key, strict=True))


def _why_not(key: _Key, a: c.Estimate, b: c.Estimate, trees: tuple[xr.DataTree, ...]) -> str:
    """Return why two estimates of one key are not of the same thing, '' where they are."""
    if a.unit != b.unit:
        return f"units differ: {a.unit} and {b.unit}"
    voltages = [_node_attribute(tree, ("iv", "conductance"), "reference_voltage") for tree in trees]
    if key[0] in ("iv", "conductance", "programming") and None not in voltages and voltages[0] != voltages[1]:
        return f"R is defined at {float(voltages[0]):g} V and at {float(voltages[1]):g} V"
    laws = [_node_attribute(tree, ("iv",), "iv_model") for tree in trees]
    if key[0] in ("iv", "selection") and laws[0] != laws[1] and "resistance" not in key[2]:
        return f"the laws differ: {laws[0]} and {laws[1]}"
    if key[0] == "selection" and a.validity != b.validity:
        return f"of different voltages: {a.validity} and {b.validity}"
    if a.label != b.label and not key[2].endswith("_value_at_centre"):
        return "they are of different points"
    return ""


def _node_attribute(tree: xr.DataTree, nodes: tuple[str, ...], key: str) -> Any:
    for name in nodes:
        if name in tree.children and key in tree[name].attrs:
            return tree[name].attrs[key]
    return None


def _at_common_resistance(
    a: c.Estimate, b: c.Estimate, trees: tuple[xr.DataTree, ...]
) -> tuple[c.Estimate, c.Estimate]:
    """Return two estimates; values of lines that are given at each model's own centre are taken half-way in ln R."""
    if not a.quantity.endswith("_value_at_centre"):
        return a, b
    nodes = [tree["iv"].to_dataset() for tree in trees]
    ln_r = 0.5 * sum(c.scalar(node, "centre", state=a.state) for node in nodes)
    name = a.quantity.removesuffix("_value_at_centre")
    label = f"{a.label.partition(' at R')[0]} at R = {format_quantity(math.exp(ln_r), 'ohm')}"
    moved = [_line_at(item, node, name, ln_r) for item, node in zip((a, b), nodes, strict=True)]
    return replace(moved[0], label=label), replace(moved[1], label=label)


def _line_at(item: c.Estimate, node: xr.Dataset, name: str, ln_r: float) -> c.Estimate:
    """Return the value of a parameter's line at ln R with the interval that follows from its errors.

    The value at the centre and the slope are nearly uncorrelated there; where the node holds their covariance, it is
    used.
    """
    pick = {"state": item.state, "parameter": name}
    step = ln_r - c.scalar(node, "centre", state=item.state)
    value = item.value + step * c.scalar(node, "slope", **pick)
    if "line_covariance" in node:
        rows = [f"{name}_intercept", f"{name}_slope"]
        part = node["line_covariance"].sel(state=item.state, line=rows, line_other=rows).values
        variance = part[0, 0] + 2 * ln_r * part[0, 1] + ln_r**2 * part[1, 1]
    else:
        variance = item.stderr**2 + (step * c.scalar(node, "slope_stderr", **pick)) ** 2
    stderr = math.sqrt(max(float(variance), 0.0)) if math.isfinite(variance) else math.nan
    half = stderr * _quantile(item)
    return replace(item, value=value, stderr=stderr, low=value - half, high=value + half, interval="95 % confidence")


def _quantile(item: c.Estimate) -> float:
    """Return half the width of an estimate's interval in standard errors, 1.96 where it has none of its own."""
    ratio = 0.5 * (item.high - item.low) / item.stderr if item.stderr > 0 else math.nan
    return ratio if math.isfinite(ratio) and ratio > c.Z_95 else c.Z_95


def _difference(a: c.Estimate, b: c.Estimate) -> Difference:
    d = b.value - a.value
    below, above, freedom = _combined(a, b)
    z, p = _test(d, below if d > 0 else above, freedom)
    return Difference(
        a.characteristic, a.state, a.quantity, a.label, a.unit, a.value, b.value, d, d - below, d + above, z, p,
        math.nan, None, a.n, b.n, a.validity, b.validity,
    )  # fmt: skip


def _sides(item: c.Estimate) -> tuple[float, float]:
    """Return how far an estimate's 95 % interval reaches below and above it, NaN where it has none."""
    if math.isfinite(item.low + item.high) and not item.interval.startswith(_POPULATION):
        return max(item.value - item.low, 0.0), max(item.high - item.value, 0.0)
    half = c.Z_95 * item.stderr
    return half, half


def _combined(a: c.Estimate, b: c.Estimate) -> tuple[float, float, float]:
    """Return how far the 95 % interval of a difference reaches below and above it, and its degrees of freedom."""
    from scipy.special import stdtrit

    (low_a, high_a), (low_b, high_b) = _sides(a), _sides(b)
    if not (_symmetric(a) and _symmetric(b)):
        return math.hypot(low_b, high_a), math.hypot(high_b, low_a), math.inf
    variances = [item.stderr**2 for item in (a, b)]
    uncertain = sum(v**2 / _freedom_of(item) for v, item in zip(variances, (a, b), strict=True))
    freedom = sum(variances) ** 2 / uncertain if uncertain > 0 else math.inf
    quantile = float(stdtrit(freedom, 0.975)) if math.isfinite(freedom) else c.Z_95
    half = quantile * math.sqrt(sum(variances))
    return half, half, freedom


def _symmetric(item: c.Estimate) -> bool:
    """Whether an estimate has a standard error and an interval of equal sides."""
    below, above = _sides(item)
    return item.stderr > 0 and abs(above - below) <= 1e-6 * below


def _freedom_of(item: c.Estimate) -> float:
    """Return the degrees of freedom of a symmetric interval, infinity of one that is not wider than the normal one."""
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    ratio = min(_quantile(item), 12.7)
    if ratio < 1.9601:
        return math.inf
    return float(brentq(lambda freedom: stdtrit(freedom, 0.975) - ratio, 1.0, 1e6))  # type: ignore[arg-type]


def _test(d: float, half: float, freedom: float) -> tuple[float, float]:
    """Return z and p of a difference whose 95 % interval reaches `half` towards zero."""
    from scipy.special import ndtri, stdtr, stdtrit

    if d == 0 and half >= 0:
        return 0.0, 1.0
    if not half > 0:
        return math.nan, math.nan
    quantile = float(stdtrit(freedom, 0.975)) if math.isfinite(freedom) else c.Z_95
    statistic = quantile * abs(d) / half
    tail = float(stdtr(freedom, -statistic)) if math.isfinite(freedom) else float(_phi(-statistic))
    z = -float(ndtri(tail)) if tail > 1e-300 else statistic
    return math.copysign(z, d), 2 * tail


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _judged(differences: list[Difference], level: float) -> list[Difference]:
    """Return the differences with the p of all comparisons together (Holm) and the decision."""
    judged = sorted((k for k, item in enumerate(differences) if math.isfinite(item.p)), key=lambda k: differences[k].p)
    largest = 0.0
    for rank, k in enumerate(judged):
        largest = max(largest, min((len(judged) - rank) * differences[k].p, 1.0))
        differences[k] = replace(differences[k], p_holm=largest, more_than_uncertainty=largest < level)
    return differences


def _model(tree: xr.DataTree) -> dict[str, str]:
    law = _node_attribute(tree, ("iv",), "iv_model")
    return {"name": str(tree.attrs.get("name", "")), "identity": identity(tree), "iv_model": str(law or "")}


def _options(tree: xr.DataTree) -> dict[str, str]:
    options = json.loads(tree.attrs.get("options", "{}"))
    return {str(key): "not set" if value is None else str(value) for key, value in options.items()}


def _changes(a: dict[str, str], b: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    keys = [key for key in {**a, **b} if a.get(key, "") != b.get(key, "")]
    return tuple((key, a.get(key, ""), b.get(key, "")) for key in keys)


def _source_rows(trees: tuple[xr.DataTree, ...]) -> tuple[tuple[str, str, str], ...]:
    """Return the source files of one model only: the name, and the start of the hash on its side."""
    hashes = [{str(s.get("sha256", "")): str(s.get("name", "")) for s in attribute(tree, "sources")} for tree in trees]
    only = [(name, sha[:12], "") for sha, name in hashes[0].items() if sha not in hashes[1]]
    return tuple(only + [(name, "", sha[:12]) for sha, name in hashes[1].items() if sha not in hashes[0]])


def _shared_sources(trees: tuple[xr.DataTree, ...]) -> tuple[str, ...]:
    first, second = (attribute(tree, "sources") for tree in trees)
    hashes = {str(source["sha256"]) for source in second if source.get("sha256")}
    return tuple(str(source.get("name", "")) for source in first if str(source.get("sha256", "")) in hashes)


def _warnings(trees: tuple[xr.DataTree, ...], shared: tuple[str, ...]) -> list[str]:
    if identity(trees[0]) == identity(trees[1]):
        return []
    found = []
    populations = [attribute(tree, "options").get("population") for tree in trees]
    if shared and None not in populations and populations[0] != populations[1]:
        found.append(
            f"both models were fitted to {', '.join(shared)}, to the populations '{populations[0]}' and "
            f"'{populations[1]}': the intervals hold where these were measured independently"
        )
    elif shared:
        found.append(
            f"both models were fitted to {', '.join(shared)}: they are not independent, differences are the doing of "
            "the options, and the intervals of the differences are too wide"
        )
    elif not all(attribute(tree, "sources") for tree in trees):
        found.append("a model states no source files, so that it cannot be checked that the two are independent")
    return found


def _place(characteristic: str, state: str) -> str:
    words = c.MEANINGS.get(characteristic, characteristic).partition(":")[0]
    return f"{words}, {state_name(state)}" if state else words


def _words(item: c.Estimate) -> str:
    return f"{_place(item.characteristic, item.state)}: {item.label}"


def _row(item: Difference) -> tuple[str, ...]:
    verdict = {True: "yes", False: "no", None: "uncertainty not known"}[item.more_than_uncertainty]
    ends = format_interval(item.low, item.high, item.unit) if math.isfinite(item.low + item.high) else ""
    interval = f" ({ends})" if ends else ""
    return (
        _place(item.characteristic, item.state), item.label, format_quantity(item.a, item.unit),
        format_quantity(item.b, item.unit), f"{format_quantity(item.difference, item.unit)}{interval}",
        format_number(item.z) if math.isfinite(item.z) else "", verdict,
    )  # fmt: skip
