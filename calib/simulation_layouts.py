"""Files as instruments write them, of virtual measurements: `calib.read` takes each, see docs/formats.md.

A layout whose files hold one device (`single`) writes one file a device; the device is then the file's name.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from calib.readers.write_verify import OPEN_RESISTANCE


@dataclass(frozen=True)
class Layout:
    """How an instrument writes an experiment.

    Attributes
    ----------
    name, title : for the command line, and for people.
    suffix : of its files.
    single : whether a file holds one device.
    lines : drawn data -> parts of the text, one for each device or trace.
    """

    name: str
    title: str
    suffix: str
    single: bool
    lines: Callable[[Any], Iterator[str]]


def _table(loops: Any) -> Iterator[str]:
    yield "Device,Cycle,Voltage (V),Current (A)\n"
    yield from _loop_rows(loops, False)


def _analyser(loops: Any) -> Iterator[str]:
    yield "Setup title,Simulated DC sweep\nInstrument,Semiconductor parameter analyser\n"
    if np.isfinite(loops.temperature):
        yield f"Temperature (K),{loops.temperature:g}\n"
    if np.isfinite(loops.compliance):
        yield f"Compliance (uA),{loops.compliance * 1e6:g}\n"
    yield "Remarks,\nDevice,Cycle,Voltage (V),Current (A)\n"
    yield from _loop_rows(loops, True)


def _loop_rows(loops: Any, absolute: bool) -> Iterator[str]:
    voltage = [f"{v:.6g}" for v in loops.voltage.tolist()]
    for device, rows in zip(loops.device, loops.current, strict=True):
        out = io.StringIO()
        for cycle, current in enumerate(rows):
            shown = np.abs(current) if absolute else current
            for v, i in zip(voltage, shown.tolist(), strict=True):
                out.write(f"{device},{cycle + 1},{v},{i:.9e}\n")
        yield out.getvalue()


_NO_NUMBER = 9.91e37
_IN_COMPLIANCE, _STATUS = 8, 22528
_DELAY = 0.1
"""Seconds from reading to reading."""


def _keithley_2400(loops: Any) -> Iterator[str]:
    """Strings of voltage, current, resistance, time, status; bit 3 of the status says compliance."""
    time = 0.0
    for current in loops.current[0]:
        out = io.StringIO()
        limit = loops.compliance if np.isfinite(loops.compliance) else np.inf
        limited = np.abs(current) >= limit * (1 - 1e-9)
        for v, i, stopped in zip(loops.voltage.tolist(), current.tolist(), limited.tolist(), strict=True):
            status = _STATUS + (_IN_COMPLIANCE if stopped else 0)
            out.write(",".join(f"{x:+.8E}" for x in (v, i, _NO_NUMBER, time, status)) + "\n")
            time += _DELAY
        yield out.getvalue()


def _easyexpert(loops: Any) -> Iterator[str]:
    """One record for each device; its cycles are the repeats that Dimension2 counts."""
    points, cycles = len(loops.voltage), loops.current.shape[1]
    for device, rows in zip(loops.device, loops.current, strict=True):
        out = io.StringIO()
        out.write("SetupTitle, Simulated I/V sweep\nPrimitiveTest, I/V Sweep\n")
        out.write("TestParameter, Context.MainFrame, B1500A\nTestParameter, Channel.Unit, SMU1:HR, SMU2:HR\n")
        out.write("TestParameter, Channel.IName, Itop, Ibot\nTestParameter, Channel.VName, Vtop, Vbot\n")
        out.write("TestParameter, Channel.Mode, V, COMMON\nTestParameter, Channel.Func, VAR1, CONST\n")
        if np.isfinite(loops.compliance):
            out.write(f"TestParameter, Measurement.Primary.Compliance, {loops.compliance:.9g}\n")
        out.write(f"MetaData, TestRecord.TestTarget, {device}\n")
        out.write(f"Dimension1, {points}, {points}, {points}\nDimension2, {cycles}, {cycles}, {cycles}\n")
        out.write("DataName, Vtop, Itop, Ibot\n")
        for current in rows:
            for v, i in zip(loops.voltage.tolist(), current.tolist(), strict=True):
                out.write(f"DataValue, {v:.6g}, {i:.9E}, {-i:.9E}\n")
        yield out.getvalue()


def _quick_iv(loops: Any) -> Iterator[str]:
    cycles = loops.current.shape[1]
    names = [f"Smu1.{q}[{k}][1]" for k in range(1, cycles + 1) for q in ("Time", "V", "I", "R")]
    yield f"Item,{','.join(names)},\n"
    for n, v in enumerate(loops.voltage.tolist()):
        cells = []
        for i in loops.current[0, :, n].tolist():
            cells += [f"{n * 0.02:.2f}", f"{v:.6g}", f"{i:.9E}", f"{v / i:.6G}" if i else "0"]
        yield f"{n + 1},{','.join(cells)},\n"


def _labview(loops: Any) -> Iterator[str]:
    points = len(loops.voltage)
    yield "LabVIEW Measurement\nWriter_Version\t2\nSeparator\tTab\nDecimal_Separator\t.\nX_Columns\tOne\n"
    yield "***End_of_Header***\n\n"
    for current in loops.current[0]:
        out = io.StringIO()
        out.write(f"Channels\t2\nSamples\t{points}\t{points}\nY_Unit_Label\tVolts\tAmps\nX_Dimension\tTime\tTime\n")
        out.write(
            "X0\t0.0E+0\t0.0E+0\nDelta_X\t0.001\t0.001\n***End_of_Header***\nX_Value\tVoltage\tCurrent\tComment\n"
        )
        for n, (v, i) in enumerate(zip(loops.voltage.tolist(), current.tolist(), strict=True)):
            out.write(f"{n * 0.001:.3f}\t{v:.6g}\t{i:.9E}\n")
        out.write("\n")
        yield out.getvalue()


_BIT_LINES = 32


def _arc_one(loops: Any) -> Iterator[str]:
    """Rows of the curve tracer, 32 cells to a word line; the instrument writes R = V / I."""
    yield "simulated\nMon Jan  1 00:00:00 2024\n"
    yield "Wordline,Bitline,Resistance,Amplitude (V),Pulse width (s),Tag,ReadTag,ReadVoltage\n"
    last = len(loops.voltage) - 1
    for k, rows in enumerate(loops.current):
        out = io.StringIO()
        word, bit = k // _BIT_LINES + 1, k % _BIT_LINES + 1
        for current in rows:
            for n, (v, i) in enumerate(zip(loops.voltage.tolist(), current.tolist(), strict=True)):
                tag = "CT_s" if n == 0 else "CT_e" if n == last else "CT_i_1"
                shown = f"{v:.6g}"
                r = float(shown) / i if v and i else 0.0
                out.write(f"{word},{bit},{r:.9e},{shown},0.05,{tag},R2 V=0.5,{shown}\n")
        yield out.getvalue()


def _reads_table(reads: Any) -> Iterator[str]:
    yield "Device,Cycle,State,Read voltage (V),Conductance (S)\n"
    yield from _read_rows(reads)


def _reads_analyser(reads: Any) -> Iterator[str]:
    yield "Setup title,Simulated reads\nInstrument,Array tester\nRemarks,\n"
    yield from _reads_table(reads)


def _read_rows(reads: Any) -> Iterator[str]:
    for device, rows in zip(reads.device, reads.conductance.tolist(), strict=True):
        out = io.StringIO()
        for cycle, values in enumerate(rows):
            for state, value in zip(reads.states, values, strict=True):
                out.write(f"{device},{cycle + 1},{state},{reads.voltage:g},{value:.9e}\n")
        yield out.getvalue()


def _pulse_table(trains: Any) -> Iterator[str]:
    yield "device,cycle,polarity,pulse,conductance (S)\n"
    for device, cycle, polarity, values in zip(
        trains.device, trains.cycle, trains.polarity, trains.values, strict=True
    ):
        yield "".join(f"{device},{cycle + 1},{polarity},{n},{g:.9e}\n" for n, g in enumerate(values.tolist()))


def _pulse_lines(trains: Any) -> Iterator[str]:
    for device, cycle, polarity, values in zip(
        trains.device, trains.cycle, trains.polarity, trains.values, strict=True
    ):
        readings = ", ".join(f"{g:.9e}" for g in values.tolist())
        yield f"({device}),cycle={cycle},G{'prog' if polarity == 'potentiation' else 'erase'}, {readings}\n"


def _pulse_columns(trains: Any) -> Iterator[str]:
    """Columns are whole trains of one device; normalised conductances have no unit."""
    unit = "" if trains.unit == "1" else f" ({trains.unit})"
    yield ",".join(f"{polarity}{unit}" for polarity in trains.polarity) + "\n"
    for n in range(max(map(len, trains.values))):
        yield ",".join(f"{values[n]:.9e}" if n < len(values) else "" for values in trains.values) + "\n"


def _write_log(log: Any) -> Iterator[str]:
    """A write a row; ranges in ohms, whose ends change places, and open ends as 0 and 1e10 ohm."""
    roles = list(log.counts)
    names = {"n_set": "n set", "n_reset": "n reset", "n_read": "n read", "attempts": "attempts"}
    counts = "".join(f",{names[role]}" for role in roles)
    yield f"device,cycle,target low (ohm),target high (ohm),resistance (ohm),success{counts}\n"
    with np.errstate(divide="ignore"):
        low = np.where(np.isfinite(log.high), 1 / log.high, 0.0)
        high = np.where(log.low > 0, 1 / log.low, OPEN_RESISTANCE)
    columns = [log.device, log.cycle + 1, low, high, 1 / log.achieved, log.success.astype(int)]
    columns += [log.counts[role] for role in roles]
    for device, cycle, r_low, r_high, r, success, *rest in zip(*(c.tolist() for c in columns), strict=True):
        cells = "".join(f",{value}" for value in rest)
        yield f"{device},{cycle},{r_low:.12g},{r_high:.12g},{r:.9g},{success}{cells}\n"


def _trace_table(traces: Any) -> Iterator[str]:
    yield "device,cycle,time (s),read voltage (V),conductance (S)\n"
    time = [f"{t:.9g}" for t in traces.time.tolist()]
    for device, cycle, values in zip(traces.device, traces.cycle.tolist(), traces.conductance.tolist(), strict=True):
        rows = zip(time, values, strict=True)
        yield "".join(f"{device},{cycle + 1},{t},{traces.voltage:g},{g:.9e}\n" for t, g in rows)


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "sweeps": (
        Layout("table", "a table, a row a point", ".csv", False, _table),
        Layout("analyser", "a parameter analyser's table with a preamble and |I|", ".csv", False, _analyser),
        Layout("keithley-2400", "strings of a Keithley 2400", ".txt", True, _keithley_2400),
        Layout("keysight-easyexpert", "EasyEXPERT of a Keysight B1500A", ".csv", False, _easyexpert),
        Layout("keysight-quick-iv", "Keysight Quick IV", ".csv", True, _quick_iv),
        Layout("labview", "a LabVIEW measurement file", ".lvm", True, _labview),
        Layout("arc-one", "curve tracer of an ArC ONE", ".csv", False, _arc_one),
    ),
    "reads": (
        Layout("table", "a table, a row a read", ".csv", False, _reads_table),
        Layout("analyser", "an array tester's table with a preamble", ".csv", False, _reads_analyser),
    ),
    "pulses": (
        Layout("table", "a table, a row a pulse", ".csv", False, _pulse_table),
        Layout("lines", "a line a train", ".txt", False, _pulse_lines),
        Layout("columns", "a column a train", ".csv", True, _pulse_columns),
    ),
    "writes": (Layout("write-verify", "a log, a row a write", ".csv", False, _write_log),),
    "retention": (Layout("table", "a table, a row a read", ".csv", False, _trace_table),),
    "noise": (Layout("table", "a table, a row a read", ".csv", False, _trace_table),),
}
"""Layouts by experiment; the first is the default."""
