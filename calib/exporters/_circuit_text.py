"""What the circuit formats have in common: comments that no text can leave, the header, and what is left out."""

import re
import textwrap
import unicodedata

import numpy as np
import xarray as xr

from calib.characteristics import MEANINGS
from calib.device_model import identity
from calib.exporters._draws import Choice
from calib.exporters._population import DEVIATE_LIMIT, SPREAD, Population
from calib.formatting import format_number

WIDTH = 100
_LEFT_OUT = {
    "iv": "the uncertainty of the population's parameters (the device model has their intervals)",
    "conductance": "the uncertainty of the conductance range",
    "activation": "temperature: the device is that of the temperature at which it was measured",
    "programming": "which part of the programming spread belongs to devices and which to cycles (their sum is written)",
    "levels": "levels: G takes any value, not one of the levels that can be told apart",
    "writes": "writes: how often a write hits its target is not simulated",
    "switching": "switching: the device keeps its state whatever the voltage, and does not wear out",
    "cycles": "cycles: the device keeps its state, so nothing follows from cycle to cycle",
    "stuck": "stuck devices: only drawn samples and crossbars have them, a device with the parameter G switches",
    "retention": "retention: the conductance does not drift with time",
    "read_noise": "read noise: the current is that of a mean read",
    "pulse": "pulse response: the conductance does not change with pulses",
    "dynamics": "dynamics: the current follows the voltage at once",
    "selection": "the comparison of conduction laws: one law is written",
    "validation": "the validation of the model",
    "examples": "the measured curves",
}


def comment(text: str) -> str:
    """Return text that is harmless behind a comment sign: printable ASCII on one line, without what a format acts on.

    Accents are dropped, other foreign characters become '?', as do control characters. Left out of ASCII are the
    backslash and the backtick, braces and the dollar sign; the signs that begin and end comments are broken.
    """
    plain = unicodedata.normalize("NFKD", " ".join(text.split()))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = re.sub(r"[^ -~]|[\\`{}$]", "?", plain)
    return re.sub(r"(?<=/)(?=\*)|(?<=\*)(?=/)", " ", plain)


def commented(lines: list[str], sign: str) -> list[str]:
    """Return lines as comments of at most `WIDTH` characters, continued ones indented behind the sign."""
    found = []
    for line in lines:
        words = comment(line)
        indent = " " * (len(line) - len(line.lstrip()))
        parts = textwrap.wrap(
            words, WIDTH - len(sign) - 1, initial_indent=indent, subsequent_indent=indent + "  ",
            break_on_hyphens=False,
        )  # fmt: skip
        found += [f"{sign} {part}".rstrip() for part in parts or [""]]
    return found


def wrapped(text: str, continuation: str) -> list[str]:
    """Return a statement on lines of at most `WIDTH` characters where it has spaces to break at."""
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=continuation, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True,
    )  # fmt: skip


def header(tree: xr.DataTree, title: str) -> list[str]:
    """Return name, technology, citation, license and identity."""
    rows = [title, f"device model: {tree.attrs.get('name', '')}"]
    rows += [f"{key}: {tree.attrs[key]}" for key in ("technology", "citation", "license") if tree.attrs.get(key)]
    return [*rows, f"identity: {identity(tree)}"]


def about(tree: xr.DataTree, population: Population) -> list[str]:
    """Return the law, the units, the range of validity, the parameters and the states."""
    law = population.law
    rows = [
        f"law: {law.title}, {law.equation}"
        if population.shape_law
        else "law: a linear resistor; the model has no I-V law",
        "units: SI (V, A, S, Ohm); a current is positive from p to n",
    ]
    rows += _validity(tree, population)
    rows.append("parameters:")
    rows += [f"  {found.name} [{found.unit}]: {found.meaning}" for found in population.inputs]
    if population.deviates:
        rows.append(f"  deviates beyond +-{DEVIATE_LIMIT:g} are held there; all zero is the typical device")
    if any(found.name == SPREAD for found in population.inputs):
        rows.append("  with spread the mean of R is G^-1: ln R moves by sigma zr - sigma^2/2")
    rows.append("typical devices (the first is G's default, unless another was asked for):")
    rows += [f"  {state}: G = {g:.6g} S" for state, g in population.typical]
    return rows + _stuck(tree)


def _validity(tree: xr.DataTree, population: Population) -> list[str]:
    p = population.shape_law
    if p is None:
        return ["valid for: voltages at which the conductance was measured"]
    low, high = np.exp(-p.ln_r_max), np.exp(-p.ln_r_min)
    node = tree["iv"].to_dataset()
    temperature = node.attrs.get("temperature")
    polarity = str(node.attrs.get("polarity", ""))
    anchor = (
        f"I({p.reference_voltage:g} V) = {p.reference_voltage:g} V G exactly"
        if p.form == "anchored"
        else f"G is V/I at {p.reference_voltage:g} V on average: scale and shape are drawn together (the paper's form)"
    )
    rows = [
        f"valid for: |V| {p.v_min:g} to {p.v_max:g} V, G {low:.4g} to {high:.4g} S; {anchor}",
        "beyond: the voltage is not limited, the law is extrapolated as it stands; beyond the range of G the law's "
        "shape stays that of the range's end",
        f"temperature: {format_number(float(temperature))} K, not an input"
        if temperature is not None
        else "temperature: not known, not an input",
    ]
    if polarity:
        folded = "; its positive voltage was the negative one of the measurement" if polarity == "negative" else ""
        rows.append(f"polarity: fitted on the {polarity} branches{folded}")
        if population.law.odd:
            rows.append("the law is odd: the other polarity is the same, by assumption")
    return rows


def _stuck(tree: xr.DataTree) -> list[str]:
    """Return what a user's own Monte Carlo needs to know of stuck devices."""
    if "stuck" not in tree.children:
        return []
    node = tree["stuck"].to_dataset()
    values = node["conductance"].values.astype(float)
    text = f"stuck devices: probability {float(node['probability']):.3g}"
    return [text + (f", G {values.min():.3g} to {values.max():.3g} S" if len(values) else "")]


def asked(choice: Choice, n_stuck: int) -> list[str]:
    """Return in words what a sample was drawn of."""
    of = f"devices programmed to {choice.conductance:g} S" if choice.conductance is not None else "devices"
    of += f" of state {choice.state}" if choice.state is not None else ""
    spread = "" if choice.conductance is None else f", programming spread {'on' if choice.spread else 'off'}"
    return [
        f"sample: {choice.samples} {of}, seed {choice.seed}{spread}, stuck devices {'on' if choice.stuck else 'off'} "
        f"({n_stuck} stuck)"
    ]


def omissions(tree: xr.DataTree) -> list[str]:
    """Return sentences: what of a device model a circuit's static device does not express."""
    sentences = []
    order = [*_LEFT_OUT, *sorted(str(node) for node in tree.children if node not in _LEFT_OUT)]
    for node in (node for node in order if node in tree.children):
        known = MEANINGS.get(node, node).partition(":")[0]
        sentences.append(_LEFT_OUT.get(node, f"{known}: not part of a static device"))
    if not set(tree.children) & {"iv", "conductance", "programming"}:
        sentences.insert(0, "the device itself: the model has no I-V law, conductance range or programming spread")
    return sentences


def nothing(tree: xr.DataTree, title: str) -> list[str]:
    """Return the header of a card that can hold no device, and why."""
    return [*header(tree, title), *(f"left out: {sentence}" for sentence in omissions(tree))]
