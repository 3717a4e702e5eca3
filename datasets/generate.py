"""Make the shipped measurement files from stated ground truth, in the layouts that instruments write.

Run from the project's root: ``python datasets/generate.py``. The same numbers come out every time.

oxide-sweeps.csv.gz
    Bipolar I-V sweeps of 48 devices, 4 cycles each, as a semiconductor parameter analyser exports them: a preamble,
    a header with units, one row a point, the absolute value of the current, a compliance plateau on the set side.
crossbar-reads.tsv.gz
    Conductance reads of a 64 x 32 array after each of 6 set and reset operations, as an array tester logs them.

`TRUTH` is what the devices of each file were drawn from; the tests recover it.
"""

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np

TRUTH: dict[str, dict[str, Any]] = {
    "oxide-sweeps": {
        "seed": 20220315,
        "devices": 48,
        "cycles": 4,
        "reference_voltage": 0.1,
        "temperature": 296.15,
        "compliance": 5e-5,
        "noise_floor": 2e-11,
        "relative_noise": 0.01,
        "stuck_devices": (11, 37),
        "set_voltage": (1.05, 0.06),
        "reset_voltage": (1.20, 0.07),
        # median R [Ohm]; sigma of ln R between devices and between cycles; gamma [V^-1/2] at the median R,
        # its slope per unit of ln R, and the standard deviation of ln(gamma) about that line
        "lrs": {"r_median": 9.0e4, "sigma_d2d": 0.22, "sigma_c2c": 0.12, "gamma": 0.95, "slope": 0.12, "spread": 0.10},
        "hrs": {"r_median": 1.1e6, "sigma_d2d": 0.40, "sigma_c2c": 0.25, "gamma": 2.05, "slope": 0.10, "spread": 0.08},
    },
    "crossbar-reads": {
        "seed": 20250901,
        "rows": 64,
        "columns": 32,
        "cycles": 6,
        "read_voltage": 0.2,
        "stuck_probability": 0.08,
        "relative_noise": 0.01,
        "lrs": {"r_median": 1.2e4, "sigma_d2d": 0.10, "sigma_c2c": 0.06},
        "hrs": {"r_median": 2.4e5, "sigma_d2d": 0.30, "sigma_c2c": 0.20},
    },
}


def poole_frenkel(voltage: np.ndarray, resistance: float, gamma: float, reference_voltage: float) -> np.ndarray:
    """Return I = c V exp(gamma sqrt|V|) with c such that I(V_ref) = V_ref / R."""
    c = np.exp(-gamma * np.sqrt(reference_voltage)) / resistance
    return c * voltage * np.exp(gamma * np.sqrt(np.abs(voltage)))


def oxide_sweeps() -> str:
    """Return the text of oxide-sweeps.csv."""
    truth = TRUTH["oxide-sweeps"]
    rng = np.random.default_rng(truth["seed"])
    out = io.StringIO()
    out.write("Setup title,Bipolar DC sweep\nInstrument,Semiconductor parameter analyser\n")
    out.write(f"Temperature (K),{truth['temperature']}\nCompliance (uA),{truth['compliance'] * 1e6:g}\nRemarks,\n")
    out.write("Device,Cycle,Voltage (V),Current (A)\n")
    sweep = _bipolar(1.5, 1.7, 0.05)
    for device in range(truth["devices"]):
        offsets = {state: rng.standard_normal() for state in ("lrs", "hrs")}
        shapes = {state: rng.standard_normal() for state in ("lrs", "hrs")}
        stuck_resistance = float(np.exp(rng.normal(np.log(4e5), 0.3)))
        previous = _resistance(truth["hrs"], offsets["hrs"], rng)
        for cycle in range(truth["cycles"]):
            r = {"hrs": previous, "lrs": _resistance(truth["lrs"], offsets["lrs"], rng)}
            previous = _resistance(truth["hrs"], offsets["hrs"], rng)
            r["hrs after"] = previous
            if device in truth["stuck_devices"]:
                r = dict.fromkeys(r, stuck_resistance)
            switching = [rng.normal(*truth[key]) for key in ("set_voltage", "reset_voltage")]
            current = _loop(sweep, r, shapes, switching, truth, rng)
            for v, i in zip(sweep, current, strict=True):
                out.write(f"D{device + 1:02d},{cycle + 1},{v:.3f},{abs(i):.4e}\n")
    return out.getvalue()


def crossbar_reads() -> str:
    """Return the text of crossbar-reads.tsv."""
    truth = TRUTH["crossbar-reads"]
    rng = np.random.default_rng(truth["seed"])
    out = io.StringIO()
    out.write("row\tcolumn\tcycle\tstate\tread voltage (V)\tconductance (uS)\n")
    for row in range(truth["rows"]):
        for column in range(truth["columns"]):
            stuck = rng.random() < truth["stuck_probability"]
            stuck_g = float(np.exp(rng.uniform(np.log(1 / 4e5), np.log(1 / 8e3))))
            offsets = {state: rng.standard_normal() for state in ("lrs", "hrs")}
            for cycle in range(truth["cycles"]):
                for state in ("lrs", "hrs"):
                    g = stuck_g if stuck else 1 / _resistance(truth[state], offsets[state], rng)
                    g *= 1 + truth["relative_noise"] * rng.standard_normal()
                    out.write(f"{row}\t{column}\t{cycle + 1}\t{state}\t{truth['read_voltage']}\t{1e6 * g:.5g}\n")
    return out.getvalue()


def _bipolar(positive: float, negative: float, step: float) -> np.ndarray:
    up, down = np.arange(round(positive / step) + 1) * step, np.arange(round(negative / step) + 1) * step
    return np.concatenate([up, up[-2::-1], -down[1:], -down[-2::-1]]) + 0.0


def _resistance(state: dict[str, float], device_offset: float, rng: np.random.Generator) -> float:
    ln_r = np.log(state["r_median"]) + state["sigma_d2d"] * device_offset + state["sigma_c2c"] * rng.standard_normal()
    return float(np.exp(ln_r))


def _gamma(state: dict[str, float], resistance: float, shape: float) -> float:
    line = np.log(state["gamma"]) + state["slope"] * np.log(resistance / state["r_median"])
    return float(np.exp(line + state["spread"] * shape))


def _loop(
    sweep: np.ndarray,
    r: dict[str, float],
    shapes: dict[str, float],
    switching: list[float],
    truth: dict[str, Any],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the current along one bipolar loop, with noise and compliance."""
    positive_peak, negative_peak = int(np.argmax(sweep)), int(np.argmin(sweep))
    index = np.arange(len(sweep))
    before_set = (index <= positive_peak) & (sweep < switching[0])
    after_reset = ((index <= negative_peak) & (sweep <= -switching[1])) | (index > negative_peak)
    states = np.where(before_set, "hrs", np.where(after_reset, "hrs after", "lrs"))
    current = np.zeros(len(sweep))
    for state, resistance in r.items():
        family = "lrs" if state == "lrs" else "hrs"
        gamma = _gamma(truth[family], resistance, shapes[family])
        here = states == state
        current[here] = poole_frenkel(sweep[here], resistance, gamma, truth["reference_voltage"])
    current *= 1 + truth["relative_noise"] * rng.standard_normal(len(sweep))
    current += truth["noise_floor"] / 3 * rng.standard_normal(len(sweep))
    return np.minimum(current, truth["compliance"])


def main() -> None:
    """Write the files beside this script."""
    folder = Path(__file__).parent
    for name, text in (("oxide-sweeps.csv.gz", oxide_sweeps()), ("crossbar-reads.tsv.gz", crossbar_reads())):
        (folder / name).write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
        print(f"datasets/{name}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    main()
