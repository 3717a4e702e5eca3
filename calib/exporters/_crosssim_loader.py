# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Build CrossSim parameters of a measured device from the data file that lies beside this module.

parameters() returns CrossSimParameters for `simulator.AnalogCore`; DEVICE is the class of device that they name.
"""

import json
from pathlib import Path

import numpy as np
from simulator import CrossSimParameters
from simulator.backend import ComputeBackend
from simulator.devices.idevice import EmptyDevice

DATA_FILE = ""
DATA = json.loads(Path(__file__).with_name(DATA_FILE).read_text(encoding="utf-8"))
xp = ComputeBackend()


def _linear(at, x, y):
    """Return y, linear between the points x and constant outside."""
    return xp.interp(at, xp.asarray(x), xp.asarray(y))


class MeasuredDevice(EmptyDevice):
    """The measured device: conductances are in units of the largest one. A part that the data lack does nothing."""

    def _siemens(self, normalised):
        return xp.clip(normalised / self.device_params.Rmin, 1e-15, None)

    def _normalised(self, siemens, like):
        return (siemens * self.device_params.Rmin).astype(like.dtype)

    def programming_error(self, input_):
        """R becomes R exp(sigma z - sigma^2 / 2), sigma linear in R; some devices are stuck."""
        g = self._siemens(input_)
        part = DATA["programming"]
        if part is not None:
            sigma = _linear(1 / g, part["resistance"], part["sigma"])
            g = g * xp.exp(sigma * (sigma / 2 - xp.clip(xp.random.normal(size=g.shape), -4, 4)))
        part = DATA["stuck"]
        if part is not None:
            drawn = xp.random.choice(xp.asarray(part["values"]), size=g.shape)
            drawn = xp.abs(drawn + part["bandwidth"] * xp.random.normal(size=g.shape))
            g = xp.where(xp.random.uniform(size=g.shape) < part["probability"], drawn, g)
        return self._normalised(g, input_)

    def drift_error(self, input_, time):
        """Programming, then G (t / t0)^-nu from t0 on; nu is normal, its mean and spread linear in ln G."""
        programmed = self.programming_error(input_)
        part = DATA["drift"]
        if part is None:
            return programmed
        x, ln_g = np.log(part["conductance"]), xp.log(self._siemens(input_))
        nu = _linear(ln_g, x, part["exponent_mean"])
        nu = nu + _linear(ln_g, x, part["exponent_std"]) * xp.random.normal(size=ln_g.shape)
        return self._normalised(self._siemens(programmed) * max(time / part["reference_time"], 1.0) ** -nu, input_)

    def read_noise(self, input_):
        """Relative noise, a power of G."""
        part = DATA["read_noise"]
        if part is None:
            return input_
        g = self._siemens(input_)
        relative = part["relative"] * (g / part["reference_conductance"]) ** part["exponent"]
        return self._normalised(g * (1 + relative * xp.random.normal(size=g.shape)), input_)

    def nonlinear_current(self, Gmat, Vmat):
        """I = G V ratio(ln R, sqrt |V|), the ratio linear between the points of the table."""
        part = DATA["current"]
        if Vmat.ndim > Gmat.ndim:
            Gmat = Gmat[(..., *(None,) * (Vmat.ndim - Gmat.ndim))]
        if part is None:
            return Gmat * Vmat
        ratio = xp.asarray(part["ratio"])
        row = self._place(-xp.log(self._siemens(Gmat)), part["ln_resistance"])
        column = self._place(xp.sqrt(xp.abs(Vmat) * self.device_params.Vread), np.sqrt(part["voltage"]))
        row, column = xp.broadcast_arrays(row, column)
        i = xp.clip(row.astype(int), 0, ratio.shape[0] - 2)
        j = xp.clip(column.astype(int), 0, ratio.shape[1] - 2)
        a, b = row - i, column - j
        low = ratio[i, j] * (1 - b) + ratio[i, j + 1] * b
        high = ratio[i + 1, j] * (1 - b) + ratio[i + 1, j + 1] * b
        return Gmat * Vmat * (low * (1 - a) + high * a)

    def nonlinear_current_sum(self, Gmat, Vterm):
        """Sum of the currents of every row."""
        if Vterm.ndim == 1:
            return self.nonlinear_current(Gmat, xp.broadcast_to(Vterm, Gmat.shape)).sum(axis=1)
        columns = [self.nonlinear_current_sum(Gmat, Vterm[:, k]) for k in range(Vterm.shape[1])]
        return xp.stack(columns, axis=1)

    @staticmethod
    def _place(at, x):
        """Return where values lie between evenly spaced points, as an index with its fraction."""
        return xp.clip((at - x[0]) / (x[-1] - x[0]) * (len(x) - 1), 0, len(x) - 1)


DEVICE = type(f"MeasuredDevice_{DATA['identity'][:12]}", (MeasuredDevice,), {})


def parameters(read_voltage=None, time=0.0):
    """Return CrossSimParameters with the device.

    read_voltage [V] is the largest voltage at a device (default: the reference voltage, or 0.1 V); time [s] is that
    since programming.
    """
    part = DATA["conductance"]
    if part is None:
        raise ValueError("the device model states no conductance range, which conductances are normalised by")
    params = CrossSimParameters()
    device = params.xbar.device
    device.Rmin, device.Rmax = 1 / part["g_on"], 1 / part["g_off"]
    device.Vread = read_voltage or DATA["reference_voltage"] or 0.1
    device.time = time
    drifts = DATA["drift"] is not None and time > 0
    for errors, used in (
        (device.programming_error, not drifts and (DATA["programming"] or DATA["stuck"])),
        (device.drift_error, drifts),
        (device.read_noise, DATA["read_noise"]),
        (device.nonlinear_IV, DATA["current"]),
    ):
        if used:
            errors.enable, errors.model = True, DEVICE.__name__
    current = DATA["current"]
    if current is not None and device.Vread > current["voltage"][-1]:
        raise ValueError(f"the I-V law is known up to {current['voltage'][-1]} V; found {device.Vread} V")
    return params
