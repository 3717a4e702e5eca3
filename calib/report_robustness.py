"""Part of a report on accuracy under attacks, noise and age."""

import numpy as np
import xarray as xr

from calib.formatting import plural
from calib.report_files import ResultFile
from calib.report_parts import PERCENT, Part, Table, joined, title_of

_ATTACKS = {"fgsm": "FGSM", "pgd": "PGD (L2)"}
_CURVES = {
    "chip": "attacker knows the chip",
    "device": "attacker knows the device model",
    "ideal": "attacker knows the weights",
}


def robustness_part(file: ResultFile, yield_above: float | None = None) -> Part:
    """Return accuracy against the strength of an attack or of noise, or against time.

    Parameters
    ----------
    yield_above : accuracy that a chip is to have to be counted as good; None for no yield.
    """
    from calib.robustness_figure import robustness_figure

    data = file.data
    caption = "Accuracy of chips: median (line) and the range of 5 to 95 % of them (band)."
    if yield_above is not None:
        caption += f" Right: fraction of chips of {PERCENT * yield_above:g} % or more, with exact 95 % intervals."
    networks = data.sizes["network"]
    note = (
        f"{plural(networks * data.sizes['chip'], 'chip')} of {plural(networks, 'network')}, "
        f"{plural(int(data.attrs['images']), 'test image')}."
    )
    figure = (f"robustness-{data.attrs['attack']}", caption, robustness_figure(data, yield_above))
    return Part(title_of(file), (_sentence(data),), (figure,), (_table(data, yield_above),), (note,))


def _table(data: xr.Dataset, yield_above: float | None) -> Table:
    from calib.robustness import yield_above as yield_of

    accuracy = data["accuracy"]
    good = None if yield_above is None else yield_of(accuracy, yield_above)
    against = str(data["strength"].attrs.get("long_name", "strength"))
    curves = [str(curve) for curve in data["curve"].values]
    columns = [against, *(_CURVES.get(curve, curve) for curve in curves)]
    if yield_above is not None:
        columns += [f"chips of {PERCENT * yield_above:g} % or more: {_CURVES.get(curve, curve)}" for curve in curves]
    rows = []
    for strength in data["strength"].values:
        at = [accuracy.sel(curve=curve, strength=strength).values for curve in curves]
        found = [PERCENT * np.quantile(values, (0.05, 0.5, 0.95)) for values in at]
        cells = [f"{middle:.1f} % ({low:.1f} to {high:.1f})" for low, middle, high in found]
        if good is not None:
            picks = [good.sel(curve=curve, strength=strength) for curve in curves]
            ends = [[PERCENT * float(pick[key]) for key in ("yield", "low", "high")] for pick in picks]
            cells += [f"{share:.0f} % ({start:.0f} to {end:.0f})" for share, start, end in ends]
        rows.append((_strength(data, strength), *cells))
    caption = f"Accuracy against {against}: median, in brackets 5 to 95 % of chips"
    if good is not None:
        caption += "; fraction of good chips, in brackets its exact 95 % interval"
    return Table(caption, tuple(columns), rows, wide=len(columns) > 4)


def _strength(data: xr.Dataset, value: float) -> str:
    from calib.results import format_time

    return format_time(float(value)) if data["strength"].attrs.get("units") == "s" else f"{value:g}"


def _sentence(data: xr.Dataset) -> str:
    """Return what the strongest attack, the largest noise or the longest time does to the median accuracy."""
    attack = str(data.attrs["attack"])
    first, last = (_strength(data, data["strength"].values[k]) for k in (0, -1))
    median = PERCENT * data["accuracy"].median(("network", "chip"))
    start = f"{float(median.isel(strength=0)[0]):.1f} %"
    ends = {str(curve): f"{float(median.sel(curve=curve).isel(strength=-1)):.1f} %" for curve in data["curve"].values}
    if attack == "ageing":
        before = "as programmed" if float(data["strength"][0]) == 0 else f"after {first}"
        found = joined([f"{end} {curve}" for curve, end in ends.items()])
        return f"The median accuracy is {start} {before}; after {last} it is {found}."
    if attack == "noise":
        found = joined([f"{end} ({curve})" for curve, end in ends.items()])
        return f"Noise of size {last} brings the median accuracy from {start} to {found}."
    found = joined([f"{end} ({_CURVES.get(curve, curve)})" for curve, end in ends.items()])
    return f"{_ATTACKS.get(attack, attack)} with eps = {last} brings the median accuracy from {start} to {found}."
