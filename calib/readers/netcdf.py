"""Measurements that calib has saved (netCDF-4)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from calib.measurement import Measurement, attributes_of, open_measurement
from calib.readers.base import Reader, ReadOptions, Sniff


class NetcdfReader(Reader):
    """A Measurement written by `calib.measurement.save`; it is taken as it is, split and flagged already."""

    name = "netcdf"
    suffixes = (".nc",)
    name_map: Mapping[str, str] = {}

    def sniff(self, path: Path) -> Sniff:
        with open(path, "rb") as file:
            if file.read(4) == b"\x89HDF":
                return Sniff(0.9, "the bytes are those of netCDF-4")
        return Sniff(0.0, "the bytes are not those of netCDF-4")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        tree = open_measurement(path)
        if np.isfinite(options.temperature):
            for child in tree.children.values():
                if "temperature" in child.coords:
                    node = child.to_dataset(inherit=False)
                    values = np.full(node.sizes[node["temperature"].dims[0]], options.temperature)
                    node["temperature"] = (node["temperature"].dims, values, attributes_of("temperature"))
                    child.dataset = node
        return tree


member = NetcdfReader()
