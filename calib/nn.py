"""Memristive layers for torch networks: the public face of `calib.crossbar`."""

from calib.crossbar.convert import convert, summary
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear, held_chips, memristive_layers

__all__ = ["Devices", "MemristiveLinear", "convert", "held_chips", "memristive_layers", "summary"]
