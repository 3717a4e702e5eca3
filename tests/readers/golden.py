"""The loop that the golden files of instruments hold, and how tests read them."""

from pathlib import Path

import numpy as np
import xarray as xr

from calib import measurement, reading
from calib.measurement import notes_of

FOLDER = Path(__file__).parent.parent / "golden" / "readers"
VOLTAGE = np.concatenate([np.arange(0, 5), np.arange(3, -5, -1), np.arange(-3, 1)]) * 0.25
CONDUCTANCE = np.where((np.arange(17) >= 4) & (np.arange(17) <= 12), 8e-5, 1e-5)  # set at +1 V, reset after -1 V
CURRENT = VOLTAGE * CONDUCTANCE


def read(name: str | Path, **options) -> xr.DataTree:
    """Read a golden file as calib.read does, its traces whole; what a reader returns is checked."""
    given = reading.ReadOptions(**options)
    tree = reading.find_reader(FOLDER / name, given).reader.read(FOLDER / name, given)
    measurement.check(tree)
    return tree


def sweeps(tree: xr.DataTree) -> list[tuple[np.ndarray, np.ndarray]]:
    """Voltage and current of each trace without padding."""
    node = tree["iv"]
    kept = np.isfinite(node["voltage"].values)
    return [(v[k], i[k]) for v, i, k in zip(node["voltage"].values, node["current"].values, kept, strict=True)]


def questions(tree: xr.DataTree) -> list[str]:
    return [sentence for node in tree.children.values() for sentence in notes_of(node, "questions")]


def assert_loop(tree: xr.DataTree, *scales: float) -> None:
    """Every trace is the golden loop with its current times a scale."""
    found = sweeps(tree)
    assert len(found) == len(scales)
    for (voltage, current), scale in zip(found, scales, strict=True):
        np.testing.assert_allclose(voltage, VOLTAGE, atol=1e-12)
        np.testing.assert_allclose(current, scale * CURRENT, rtol=1e-9, atol=1e-18)


def clarius(path: Path, terminals: tuple[str, ...] = ("Anode", "Cathode"), gates: tuple[float, ...] = ()) -> Path:
    """Write a Clarius workbook: sheets Data, Calc, Settings and Append1, the loop once or once per gate voltage."""
    import openpyxl

    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.title = "Data"
    first = terminals[0]
    for title, scale in (("Data", 1.0), ("Append1", 2.0)):
        sheet = book["Data"] if title == "Data" else book.create_sheet(title)
        names = [f"{first}I", f"{first}V", *(["GateV"] if gates else [])]
        sheet.append([f"{name}({k + 1})" for k in range(max(len(gates), 1)) for name in names])
        for v, i in zip(VOLTAGE.tolist(), (scale * CURRENT).tolist(), strict=True):
            sheet.append([cell for gate in (gates or (None,)) for cell in (i, v, *([] if gate is None else [gate]))])
    book.create_sheet("Calc", 1)
    settings = book.create_sheet("Settings", 2)
    for name in ("Data", "Append1"):
        for row in (
            ["=" * 34], [name], ["=" * 34], [], ["Test Name", "loop#1@1"], ["Mode", "Sweeping"],
            ["Clarius+ Version", "V1.9"], ["Comment", "chuck 25 degC"], [],
            ["Device Terminal", *terminals], ["Instrument", *(f"SMU{k + 1}" for k in range(len(terminals)))],
            ["Operation Mode", "Voltage List Sweep", "Common", *(["Voltage Step"] if gates else [])],
            ["Start/Bias", "0", "N/A", *(["1"] if gates else [])], ["Compliance", "0.001", "N/A", "0.1"],
        ):  # fmt: skip
            settings.append(row)
    book.save(path)
    return path
