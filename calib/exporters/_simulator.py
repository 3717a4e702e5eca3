"""What the cards for simulators of networks have in common: what they leave out, and data with a loader beside them."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import xarray as xr

from calib.exporters import _numbers
from calib.exporters._loaders import loader, module_name
from calib.exporters.base import Exporter


class Simulator(Exporter):
    """A card that carries some characteristics, and of some of these not all.

    Attributes
    ----------
    carried : nodes of the device model that the card carries.
    finer : node -> sentence on what of it the card does not carry.
    """

    carried: ClassVar[tuple[str, ...]]
    finer: ClassVar[Mapping[str, str]]

    @abstractmethod
    def more_omits(self, device_model: xr.DataTree) -> list[str]:
        """Return sentences on what else this target cannot express."""

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return [*_numbers.omissions(device_model, self.carried, self.finer), *self.more_omits(device_model)]


class LoadedSimulator(Simulator):
    """JSON, and the module `_TARGET_loader.py` of this folder beside it, which makes the simulator's objects of it.

    Attributes
    ----------
    versions : of the simulator that the card was written for.
    units : of the numbers.
    """

    versions: ClassVar[str]
    units: ClassVar[str]

    @abstractmethod
    def data(self, device_model: xr.DataTree) -> dict[str, Any]:
        """Return what the loader reads."""

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        head = _numbers.header(device_model)
        name = self.file_name(device_model)
        document = {
            "format": f"calib-{self.name}/1", self.name: self.versions, **head, "units": self.units,
            **self.data(device_model), "left_out": self.omits(device_model),
        }  # fmt: skip
        return {
            name: _numbers.to_json(document),
            module_name(head["name"], self.name): loader(self.name, name, head["identity"]),
        }
