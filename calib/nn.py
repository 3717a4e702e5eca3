"""Memristive layers for torch networks: the public face of `calib.crossbar`."""

from calib.crossbar.array import Array
from calib.crossbar.attention import MemristiveMultiheadAttention
from calib.crossbar.calibration import calibrate
from calib.crossbar.chip_tables import targets as programming_targets
from calib.crossbar.chip_tables import write_all as write_programming_targets
from calib.crossbar.chips import ChipStack, held_chips
from calib.crossbar.convert import convert
from calib.crossbar.convolution import MemristiveConv1d, MemristiveConv2d, MemristiveConv3d
from calib.crossbar.crossbars import same_devices
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.crossbar.recurrent import (
    MemristiveGRU,
    MemristiveGRUCell,
    MemristiveLSTM,
    MemristiveLSTMCell,
    MemristiveRNN,
    MemristiveRNNCell,
)
from calib.crossbar.summary import summary, summary_text

__all__ = [
    "Array",
    "ChipStack",
    "Devices",
    "MemristiveConv1d",
    "MemristiveConv2d",
    "MemristiveConv3d",
    "MemristiveGRU",
    "MemristiveGRUCell",
    "MemristiveLSTM",
    "MemristiveLSTMCell",
    "MemristiveLinear",
    "MemristiveMultiheadAttention",
    "MemristiveRNN",
    "MemristiveRNNCell",
    "calibrate",
    "convert",
    "held_chips",
    "memristive_layers",
    "programming_targets",
    "same_devices",
    "summary",
    "summary_text",
    "write_programming_targets",
]
