"""Pulse response: how the conductance changes from pulse to pulse, per train and for the population."""

import numpy as np
import xarray as xr

from calib.fitting.intervals import quantile_interval
from calib.fitting.programming import variance_components
from calib.fitting.pulse_energy import add_energy
from calib.fitting.pulse_numbers import GRID, QUANTITIES, Numbers, numbers_of
from calib.fitting.pulse_trains import MINIMUM_READINGS, POLARITIES, Train, trains_of
from calib.pulse_laws import LAWS

BINS = 12
BAND = (0.05, 0.5, 0.95)
_BAND_SHARE = np.linspace(0, 1, 26)
_EXAMPLES, _EXAMPLE_POINTS = 3, 100
_MOST_SEQUENCES = 400
_FEWEST_STEPS = 5
_MISFIT = 0.1
Z_95 = 1.959963984540054

ASYMMETRIES = {
    "asymmetry": "difference of the nonlinearities of potentiation and depression",
    "asymmetry_neurosim": "NeuroSim's asymmetry, |label of potentiation - label of depression|",
    "asymmetry_area": "area between the potentiation curve and the depression curve run backwards, share of the whole",
    "asymmetry_step": "(up - down) / (up + down) of the steps at mid-range",
    "symmetry_point": "where up and down steps are equal, share of the range",
}
STATEMENT = (
    "nonlinearity: largest deviation of the smooth curve from the straight line between its ends, as a share of its "
    "change, positive where the first pulses change most (where the linear law is taken, that of soft bounds, which "
    "holds its error); NeuroSim's label is that of the soft-bounds law over 0.099 "
    "(NeuroSim writes the one of depression with a minus); write noise: what one step adds and the next keep; "
    "transient noise: read noise and what relaxes before the next reading; number of states: range over median step; "
    "distinguishable levels: neighbours 2 x 1.645 standard deviations of one step and one reading apart (5 % error); a "
    "step is what lies between two readings; per-pulse numbers count single pulses"
)


def pulse_node(pulses: xr.Dataset, warnings: list[str]) -> xr.Dataset | None:
    """Fit the pulse response of trains of pulses.

    Every train is fitted with every law of `pulse_laws.LAWS`; for each direction the law with the smallest sum of
    AICc over the trains is taken. Normalised data (unit 1) stay in their own unit.

    Parameters
    ----------
    pulses : the node pulses of a Measurement.
    warnings : sentences are added about what the data do not support.

    Returns
    -------
    xarray.Dataset or None
        Dimensions: polarity; law; sequence (every fitted train, at most `_MOST_SEQUENCES`); bin, of the tables of the
        change per step against G. None where there is no train.
    """
    unit = str(pulses["conductance"].attrs.get("units", "S"))
    every = trains_of(pulses)
    moving = [train for train in every if train.polarity]
    if not moving:
        warnings.append("pulse response: not found, because no sequence of pulses changes the conductance")
        return None
    _say_unfit(every, unit, warnings)
    fitting = [train for train in moving if train.fits]
    numbers = numbers_of(fitting, warnings) if fitting else None
    polarities = [name for name in POLARITIES if any(train.polarity == name for train in moving)]
    variables: dict[str, tuple] = {}
    _ranges(variables, moving, numbers, unit)
    _read_noise(variables, moving, polarities, unit)
    if unit == "S":
        add_energy(variables, moving, warnings)
    if numbers is not None:
        _selection(variables, numbers, polarities)
        _population(variables, numbers, polarities, unit)
        _asymmetries(variables, numbers)
        _steps(variables, numbers, polarities, unit)
        _say_misfit(variables, polarities, warnings)
        _sequences(variables, numbers, unit)
        _curves(variables, numbers, polarities, unit)
    n = [sum(train.polarity == name for train in (fitting or moving)) for name in polarities]
    owners = [{train.device for train in (fitting or moving) if train.polarity == name} for name in polarities]
    variables["n_sequences"] = ("polarity", n, {"units": "1", "long_name": "trains of pulses"})
    variables["n_devices"] = ("polarity", [len(names) for names in owners], {"units": "1", "long_name": "devices"})
    variables["polarity"] = ("polarity", polarities)
    variables["bound"] = ("bound", ["low", "high"])
    attrs: dict[str, str | int] = {
        "unit": unit, "statement": STATEMENT, "n_left_out": len(every) - len(fitting),
        "method": "maximum likelihood of each train with persistent and transient noise; law by AICc"
        if numbers is not None else "readings only; no law of identical pulses was fitted",
    }  # fmt: skip
    return xr.Dataset(variables, attrs=attrs).set_coords(
        [name for name in ("polarity", "bound", "law", "sequence_device") if name in variables]
    )


def _say_unfit(every: list[Train], unit: str, warnings: list[str]) -> None:
    stepped = sum(not train.identical for train in every)
    short = sum(train.identical and len(train.pulse) < MINIMUM_READINGS for train in every)
    still = sum(not train.polarity for train in every)
    if stepped:
        warnings.append(
            f"pulse response: the pulses of {stepped} of {len(every)} trains differ in amplitude or width, so no law "
            "of identical pulses was fitted to them; their conductance range and read noise are given"
        )
    if short:
        warnings.append(
            f"pulse response: {short} of {len(every)} trains have fewer than {MINIMUM_READINGS} readings and were not "
            "fitted; measure longer trains"
        )
    if still:
        warnings.append(f"pulse response: {still} of {len(every)} trains do not change the conductance")
    if unit == "1":
        warnings.append(
            "pulse response: the conductances are normalised, so ranges, steps and noise are in their unit, siemens "
            "are not known; shapes, ratios and numbers of states hold"
        )


def _attrs(unit: str, long_name: str) -> dict[str, str]:
    return {"units": unit, "long_name": long_name}


def _summary(values: np.ndarray, errors: np.ndarray, devices: np.ndarray) -> dict[str, float]:
    """Return median, its 95 % interval, and the spread with estimation error removed, of one number of many trains."""
    ok = np.isfinite(values)
    values, errors, devices = values[ok], errors[ok], devices[ok]
    keys = ("median", "low", "high", "spread", "spread_stderr", "d2d", "c2c")
    result: dict[str, float] = {key: float("nan") for key in keys}
    if not len(values):
        return result
    result["median"] = float(np.median(values))
    result["low"], result["high"] = quantile_interval(values, 0.5)
    known = errors[np.isfinite(errors)]
    if len(values) == 1:
        half = Z_95 * float(errors[0])
        result["low"], result["high"] = result["median"] - half, result["median"] + half
        return result
    scale = float(np.ptp(values)) or 1.0
    error_variance = float(np.median(known**2)) / scale**2 if len(known) else 0.0
    parts = variance_components(values / scale, devices, error_variance)
    result |= {
        "spread": parts.total * scale, "spread_stderr": parts.total_stderr * scale,
        "d2d": parts.d2d * scale, "c2c": parts.c2c * scale,
    }  # fmt: skip
    return result


def _add(variables: dict[str, tuple], name: str, dims: tuple[str, ...], rows: list[dict[str, float]], unit: str,
         long_name: str) -> None:  # fmt: skip
    """Add median, bound, spread (with error), d2d and c2c of a number; one row per polarity, or a single one."""

    def column(key: str) -> np.ndarray | float:
        return np.array([row[key] for row in rows]) if dims else rows[0][key]

    variables[name] = (dims, column("median"), _attrs(unit, f"{long_name}, median"))
    ends = np.array([[row["low"], row["high"]] for row in rows])
    variables[f"{name}_bound"] = ((*dims, "bound"), ends if dims else ends[0], _attrs(unit, "95 % interval of it"))
    variables[f"{name}_spread"] = (dims, column("spread"), _attrs(unit, f"{long_name}, standard deviation of trains"))
    variables[f"{name}_spread_stderr"] = (dims, column("spread_stderr"), _attrs(unit, "its standard error"))
    for key, words in (("d2d", "between devices"), ("c2c", "between the cycles of a device")):
        if any(np.isfinite(row[key]) for row in rows):
            variables[f"{name}_{key}"] = (dims, column(key), _attrs(unit, f"{long_name}, standard deviation {words}"))


def _ranges(variables: dict[str, tuple], moving: list[Train], numbers: Numbers | None, unit: str) -> None:
    """Add G_min and G_max over devices: the ends of their trains without transient noise, or the extreme readings."""
    if numbers is None:
        low = np.array([train.conductance.min() for train in moving])
        high = np.array([train.conductance.max() for train in moving])
        devices = np.array([train.device for train in moving])
        error = np.sqrt([train.read_variance / train.reads for train in moving])
    else:
        ends = np.stack([numbers.values["g_start"], numbers.values["g_end"]])
        low, high = ends.min(axis=0), ends.max(axis=0)
        devices = np.array([train.device for train in numbers.trains])
        error = np.maximum(numbers.errors["g_start"], numbers.errors["g_end"])
    names, index = np.unique(devices, return_inverse=True)
    count = np.bincount(index)
    means = [np.bincount(index, values) / count for values in (low, high)]
    errors = np.sqrt(np.bincount(index, error**2)) / count
    if numbers is None:  # the extremes of all readings
        means = [np.full(len(names), np.inf), np.full(len(names), -np.inf)]
        np.minimum.at(means[0], index, low)
        np.maximum.at(means[1], index, high)
    for name, values, words in (("g_min", means[0], "smallest"), ("g_max", means[1], "largest")):
        row = _summary(values, errors, names)
        _add(variables, name, (), [row], unit, f"{words} conductance of a device's trains")


def _read_noise(variables: dict[str, tuple], moving: list[Train], polarities: list[str], unit: str) -> None:
    """Add the noise of a single read from repeated reads, pooled over trains, where readings were repeated."""
    freedom = np.array([train.read_freedom for train in moving], dtype=float)
    if not freedom.any():
        return
    squares = np.array([np.nan_to_num(train.read_variance) * train.read_freedom for train in moving])
    named = np.array([train.polarity for train in moving])
    n = np.array([freedom[named == name].sum() for name in polarities])
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(np.array([squares[named == name].sum() for name in polarities]) / n)
        stderr = sigma / np.sqrt(2 * n)
    variables["read_noise"] = ("polarity", sigma, _attrs(unit, "standard deviation of one read, from repeated reads"))
    variables["read_noise_stderr"] = ("polarity", stderr, _attrs(unit, "its standard error"))
    variables["n_read_freedom"] = ("polarity", n.astype(np.int64), _attrs("1", "degrees of freedom of the read noise"))


def _selection(variables: dict[str, tuple], numbers: Numbers, polarities: list[str]) -> None:
    """Add the table of laws: sum of AICc less the smallest, and how many trains prefer each."""
    named = np.array([train.polarity for train in numbers.trains])
    aicc = np.stack([fit.aicc for fit in numbers.fits.values()])
    best = aicc.argmin(axis=0)
    table, votes, chosen = [], [], []
    for name in polarities:
        here = named == name
        total = aicc[:, here].sum(axis=1)
        table.append(total - total.min())
        votes.append(np.bincount(best[here], minlength=len(LAWS)))
        chosen.append(list(LAWS)[int(total.argmin())] if here.any() else "")
    variables["law"] = ("law", list(LAWS))
    variables["aicc"] = (("polarity", "law"), np.array(table), _attrs("1", "sum of AICc less that of the best law"))
    variables["n_preferred"] = (("polarity", "law"), np.array(votes), _attrs("1", "trains that prefer the law"))
    variables["law_chosen"] = ("polarity", chosen, {"long_name": "law taken"})


def _population(variables: dict[str, tuple], numbers: Numbers, polarities: list[str], unit: str) -> None:
    named = np.array([train.polarity for train in numbers.trains])
    devices = np.array([train.device for train in numbers.trains])
    for name, (kind, words) in QUANTITIES.items():
        rows = [
            _summary(numbers.values[name][here], numbers.errors[name][here], devices[here])
            for here in (named == polarity for polarity in polarities)
        ]
        _add(variables, name, ("polarity",), rows, unit if kind == "G" else kind, words)
    fading = [int(np.isfinite(numbers.values["memory"][named == polarity]).sum()) for polarity in polarities]
    variables["n_fading"] = ("polarity", fading, _attrs("1", "trains whose write noise fades (the memory is theirs)"))


def _asymmetries(variables: dict[str, tuple], numbers: Numbers) -> None:
    """Add how much potentiation and depression of the same device differ, over devices that have both."""
    named = np.array([train.polarity for train in numbers.trains])
    devices = np.array([train.device for train in numbers.trains])
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ASYMMETRIES}
    owners = []
    for device in np.unique(devices):
        up, down = (np.flatnonzero((devices == device) & (named == name)) for name in POLARITIES)
        if len(up) and len(down):
            owners.append(device)
            for name, found in _asymmetry(numbers, up, down).items():
                rows[name].append(found)
    for name, words in ASYMMETRIES.items():
        if owners:
            values, errors = np.array(rows[name]).T
            _add(variables, name, (), [_summary(values, errors, np.array(owners))], "1", words)
    variables["n_both"] = ((), len(owners), _attrs("1", "devices with potentiation and depression"))


def _asymmetry(numbers: Numbers, up: np.ndarray, down: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return every asymmetry of one device with its standard error, NaN where that is not known."""
    v, e = numbers.values, numbers.errors

    def mean(name: str, rows: np.ndarray) -> tuple[float, float]:
        return float(np.mean(v[name][rows])), float(np.sqrt(np.sum(e[name][rows] ** 2)) / len(rows))

    (d_up, s_up), (d_down, s_down) = mean("nonlinearity", up), mean("nonlinearity", down)
    (l_up, t_up), (l_down, t_down) = mean("neurosim_label", up), mean("neurosim_label", down)
    (m_up, r_up), (m_down, r_down) = mean("step_mid", up), mean("step_mid", down)
    m_down = abs(m_down)
    total = m_up + m_down
    curve_up, curve_down = (numbers.curves[rows].mean(axis=0) for rows in (up, down))
    backwards = 1 - curve_down[::-1]
    step_up, step_down = (
        np.gradient(curve, GRID) * abs(float(np.mean(numbers.of("change")[rows] / _pulses(numbers, rows))))
        for curve, rows in ((curve_up, up), (curve_down, down))
    )
    return {
        "asymmetry": (abs(d_up - d_down), float(np.hypot(s_up, s_down))),
        "asymmetry_neurosim": (abs(l_up + l_down), float(np.hypot(t_up, t_down))),
        "asymmetry_area": (float(np.trapezoid(np.abs(curve_up - backwards), GRID)), np.nan),
        "asymmetry_step": ((m_up - m_down) / total, 2 * float(np.hypot(m_down * r_up, m_up * r_down)) / total**2),
        "symmetry_point": (_crossing(curve_up, step_up, 1 - curve_down, step_down), np.nan),
    }


def _pulses(numbers: Numbers, rows: np.ndarray) -> np.ndarray:
    return np.array([numbers.trains[k].pulse[-1] for k in rows])


def _crossing(g_up: np.ndarray, up: np.ndarray, g_down: np.ndarray, down: np.ndarray) -> float:
    """Return the share of the range at which the steps up and down have the same size, NaN where they never do."""
    difference = np.interp(GRID, g_up, up) - np.interp(GRID, g_down[::-1], down[::-1])
    change = np.flatnonzero(np.diff(np.sign(difference[1:-1])) != 0)
    if not len(change):
        return float("nan")
    k = int(change[0]) + 1
    return float(GRID[k] + (GRID[k + 1] - GRID[k]) * difference[k] / (difference[k] - difference[k + 1]))


def _steps(variables: dict[str, tuple], numbers: Numbers, polarities: list[str], unit: str) -> None:
    """Add the tables of the change per step against the smooth G, in `BINS` bins over the range of all trains."""
    owner, first = numbers.flat.owner, numbers.flat.first
    smooth = numbers.smooth()
    keep = np.ones(len(owner), dtype=bool)
    keep[first] = False
    index = np.flatnonzero(keep)
    middle = 0.5 * (smooth[index] + smooth[index - 1])
    observed, expected = numbers.flat.y[index] - numbers.flat.y[index - 1], smooth[index] - smooth[index - 1]
    staying = numbers.of("write_noise")[owner[index]] ** 2 * numbers.v[index]
    edges = np.linspace(smooth.min(), smooth.max(), BINS + 1)
    place = np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, BINS - 1)
    named = np.array([POLARITIES.index(train.polarity) for train in numbers.trains])[owner[index]]
    shape = (len(polarities), BINS)
    tables = {key: np.full(shape, np.nan) for key in ("mean", "stderr", "law", "std", "std_stderr", "write")}
    count = np.zeros(shape, dtype=np.int64)
    for row, polarity in enumerate(polarities):
        for column in range(BINS):
            here = (place == column) & (named == POLARITIES.index(polarity))
            count[row, column] = n = int(here.sum())
            if n < _FEWEST_STEPS:
                continue
            noise = observed[here] - expected[here]
            tables["mean"][row, column] = observed[here].mean()
            tables["stderr"][row, column] = observed[here].std(ddof=1) / np.sqrt(n)
            tables["law"][row, column] = expected[here].mean()
            tables["std"][row, column] = sigma = np.sqrt(np.mean(noise**2))
            tables["std_stderr"][row, column] = sigma / np.sqrt(2 * n)
            tables["write"][row, column] = np.sqrt(staying[here].mean())
    centres = 0.5 * (edges[1:] + edges[:-1])
    variables["g_bin"] = ("bin", centres, _attrs(unit, "conductance at the middle of the bin"))
    for key, name, words in (
        ("mean", "step", "change per step, mean"),
        ("stderr", "step_stderr", "its standard error"),
        ("law", "step_law", "change per step by the law, mean"),
        ("std", "step_std", "standard deviation of the change per step about the law"),
        ("std_stderr", "step_std_stderr", "its standard error"),
        ("write", "step_write_noise", "write noise of the trains' fits, root mean square"),
    ):
        variables[name] = (("polarity", "bin"), tables[key], _attrs(unit, words))
    variables["n_steps"] = (("polarity", "bin"), count, _attrs("1", "steps in the bin"))


def _say_misfit(variables: dict[str, tuple], polarities: list[str], warnings: list[str]) -> None:
    """Say where the measured mean step departs from the law's by more than chance and by more than `_MISFIT`."""
    mean, error, law = (variables[name][1] for name in ("step", "step_stderr", "step_law"))
    for row, name in enumerate(polarities):
        if not np.isfinite(law[row]).any():
            continue
        off = np.abs(mean[row] - law[row])
        clear = (off > 4 * error[row]) & (off > _MISFIT * np.nanmax(np.abs(law[row])))
        if clear.any():
            k = int(np.nanargmax(np.where(clear, off, np.nan)))
            warnings.append(
                f"pulse response: the {variables['law_chosen'][1][row]} law does not follow the {name} steps "
                f"everywhere: about G = {variables['g_bin'][1][k]:.3g} the mean step is {mean[row, k]:.3g} and the "
                f"law's {law[row, k]:.3g}; use the table of steps there"
            )


def _sequences(variables: dict[str, tuple], numbers: Numbers, unit: str) -> None:
    """Add the numbers of every train with their standard errors."""
    shown = slice(0, _MOST_SEQUENCES)
    trains = numbers.trains[shown]
    variables["sequence_device"] = ("sequence", [train.device for train in trains], {"long_name": "device"})
    variables["sequence_polarity"] = ("sequence", [train.polarity for train in trains], {"long_name": "direction"})
    variables["sequence_cycle"] = ("sequence", [train.cycle for train in trains], _attrs("1", "cycle"))
    length = [float(train.pulse[-1]) for train in trains]
    variables["sequence_pulses"] = ("sequence", length, _attrs("1", "pulses between first and last reading"))
    for name, (kind, words) in QUANTITIES.items():
        of = unit if kind == "G" else kind
        variables[f"sequence_{name}"] = ("sequence", numbers.values[name][shown], _attrs(of, words))
        if np.isfinite(numbers.errors[name]).any():
            error = numbers.errors[name][shown]
            variables[f"sequence_{name}_stderr"] = ("sequence", error, _attrs(of, "its standard error"))


def _curves(variables: dict[str, tuple], numbers: Numbers, polarities: list[str], unit: str) -> None:
    """Add the band of all trains' smooth curves, and a few trains as measured, for figures."""
    named = np.array([train.polarity for train in numbers.trains])
    start, change = numbers.of("start")[:, None], numbers.of("change")[:, None]
    every = start + change * np.stack([np.interp(_BAND_SHARE, GRID, curve) for curve in numbers.curves])
    band = np.full((len(polarities), len(_BAND_SHARE), len(BAND)), np.nan)
    for row, name in enumerate(polarities):
        if (named == name).any():
            band[row] = np.quantile(every[named == name], BAND, axis=0).T
    variables["band_share"] = ("band_share", _BAND_SHARE, _attrs("1", "share of the train's pulses"))
    variables["band_quantile"] = ("band_quantile", list(BAND), _attrs("1", "quantile over trains"))
    dims = ("polarity", "band_share", "band_quantile")
    variables["band"] = (dims, band, _attrs(unit, "conductance by the law, quantiles over trains"))
    rows = np.concatenate([
        here[np.unique(np.linspace(0, len(here) - 1, _EXAMPLES).round().astype(int))]
        for here in (np.flatnonzero(named == name) for name in polarities) if len(here)
    ])  # fmt: skip
    tables = np.full((3, len(rows), _EXAMPLE_POINTS), np.nan)
    smooth, first = numbers.smooth(), numbers.flat.first
    for row, k in enumerate(rows):
        train = numbers.trains[k]
        shown = np.unique(np.linspace(0, len(train.pulse) - 1, _EXAMPLE_POINTS).round().astype(int))
        tables[:, row, : len(shown)] = train.pulse[shown], train.conductance[shown], smooth[first[k] + shown]
    for name, table, of, words in (
        ("example_pulse", tables[0], "1", "pulses"), ("example_conductance", tables[1], unit, "conductance, measured"),
        ("example_law", tables[2], unit, "conductance by the law"),
    ):  # fmt: skip
        variables[name] = (("example", "example_point"), table, _attrs(of, words))
    variables["example_device"] = ("example", [numbers.trains[k].device for k in rows], {"long_name": "device"})
    variables["example_polarity"] = ("example", named[rows].tolist(), {"long_name": "direction"})
