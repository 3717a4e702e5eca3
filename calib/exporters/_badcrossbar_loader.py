# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Solve the sampled array that lies beside this module with badcrossbar.

RESISTANCES is (word line, bit line) in ohm; solve(voltages, r_i) returns badcrossbar's solution.
"""

from pathlib import Path

import badcrossbar
import numpy as np

DATA_FILE = ""
RESISTANCES = np.loadtxt(Path(__file__).with_name(DATA_FILE), delimiter=",", comments="#")


def solve(voltages, r_i=1.0, **options):
    """Return the solution for voltages (word line, example) [V] and the lines' resistance per segment r_i [Ohm]."""
    return badcrossbar.compute(np.asarray(voltages, dtype=float), RESISTANCES, r_i=r_i, **options)
