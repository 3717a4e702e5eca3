"""badcrossbar: the resistances of an array sampled from the device model, and a module that solves it.

Every device is programmed to a conductance drawn evenly between G_off and G_on, is spread by programming, and is stuck
with the model's probability. The generator is numpy's default one with the seed `SEED`, so the array is the same every
time; `sample` draws others.
"""

import math

import numpy as np
import xarray as xr

from calib.errors import ModelError, OptionError
from calib.exporters import _numbers
from calib.exporters._loaders import loader, module_name
from calib.exporters._simulator import Simulator
from calib.exporters._text import one_line
from calib.model_draw import Stuck

WORD_LINES, BIT_LINES, SEED = 32, 32, 0
_FINER = {
    "conductance": "the population: badcrossbar takes the resistances of one array, a sample with a stated seed",
}


class Badcrossbar(Simulator):
    """A table of resistances, and a module that gives it to badcrossbar."""

    name = "badcrossbar"
    suffix = ".badcrossbar.csv"
    carries = f"the resistances of a {WORD_LINES} x {BIT_LINES} array sampled from range, spread and stuck devices"

    carried = ("conductance", "programming", "stuck")
    finer = _FINER

    def more_omits(self, device_model: xr.DataTree) -> list[str]:
        missing = _numbers.conductance_range(device_model) is None
        return ["the array itself: the model states no conductance range to draw from"] if missing else []

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        head = _numbers.header(device_model)
        name = self.file_name(device_model)
        lines = [f"# device model {head['identity']}", f"# name: {one_line(head['name'])}",
                 f"# citation: {one_line(head['citation'])}"]  # fmt: skip
        lines += [f"# leaves out: {sentence}" for sentence in self.omits(device_model)]
        if _numbers.conductance_range(device_model) is not None:
            resistance = sample(device_model)
            lines.append(
                f"# resistance [ohm] of {WORD_LINES} word lines (rows) x {BIT_LINES} bit lines, seed {SEED}; "
                "conductances asked for lie evenly between G_off and G_on"
            )
            lines += [",".join(f"{value:.{_numbers.DIGITS}g}" for value in row) for row in resistance.tolist()]
        files = {name: "\n".join([*lines, ""])}
        if _numbers.conductance_range(device_model) is not None:
            files[module_name(head["name"], "badcrossbar")] = loader("badcrossbar", name, head["identity"])
        return files


def sample(tree: xr.DataTree, word_lines: int = WORD_LINES, bit_lines: int = BIT_LINES, seed: int = SEED) -> np.ndarray:
    """Return the resistances [Ohm], (word line, bit line), of an array sampled from a device model.

    Raises
    ------
    OptionError
        When the array has no device, or the seed is negative.
    ModelError
        When the model states no conductance range.
    """
    if word_lines < 1 or bit_lines < 1 or seed < 0:
        raise OptionError(
            f"an array of {word_lines} x {bit_lines} devices with seed {seed}; expected at least 1 x 1, seed >= 0"
        )
    window = _numbers.conductance_range(tree)
    if window is None:
        raise ModelError(
            f"the device model '{tree.attrs.get('name', '')}' states no conductance range, so no array can be sampled"
        )
    generator = np.random.default_rng(seed)
    shape = (word_lines, bit_lines)
    r = 1 / generator.uniform(window.g_off, window.g_on, shape)
    spread = _numbers.programming(tree)
    if spread is not None:
        sigma = np.interp(r, spread.resistance, spread.sigma)
        r = r * np.exp(sigma * (generator.standard_normal(shape) - sigma / 2))
    if _numbers.stuck(tree) is not None:
        drawn = Stuck.of(tree["stuck"].to_dataset()).devices(math.prod(shape), generator).reshape(shape)
        r = np.where(np.isfinite(drawn), 1 / drawn, r)
    return r


member = Badcrossbar()
