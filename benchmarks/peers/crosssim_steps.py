"""Training steps of CrossSim (https://github.com/sandialabs/cross-sim): noise of readings and I-V laws."""

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
from serving import Task, network, serve, step

G_OFF, G_ON = 5.25e-7, 2.62e-6  # S, SiOx at high resistance
GAMMA = 1.95  # V^-1/2
NOISE = 0.1
LAWS = {
    "its cubic law": ("CubicDevice", True),
    "Poole-Frenkel": ("PooleFrenkel", False),
}


def make(sizes: list[int], batch: int) -> tuple[str, dict[str, tuple[str, Task]]]:
    """Return the version and the tasks."""
    parameters = importlib.import_module("simulator").CrossSimParameters
    layers = importlib.import_module("simulator.algorithms.dnn.torch.linear")
    base = importlib.import_module("simulator.devices.idevice").EmptyDevice

    class PooleFrenkel(base):
        """I = G V exp(gamma (sqrt|V| - sqrt(0.1 V))), a law of a user's own: CrossSim finds it by its name."""

        def nonlinear_current(self, Gmat: Any, Vmat: Any) -> Any:
            volt = Vmat * self.device_params.Vread  # type: ignore[attr-defined]
            factor = Vmat * np.exp(GAMMA * (np.sqrt(np.abs(volt)) - np.sqrt(0.1)))
            return Gmat[(..., *(None,) * (Vmat.ndim - Gmat.ndim))] * factor

    assert PooleFrenkel.__name__ == LAWS["Poole-Frenkel"][0]

    def task(law: str, by_products: bool) -> tuple[str, Task]:
        p = parameters()
        p.core.style = "BALANCED"
        p.core.rows_max = p.core.cols_max = max(sizes) + 1
        device = p.xbar.device
        device.Rmin, device.Rmax, device.Vread = 1 / G_ON, 1 / G_OFF, 0.5
        device.read_noise.enable, device.read_noise.model = True, "NormalProportionalDevice"
        device.read_noise.magnitude = NOISE
        device.nonlinear_IV.enable, device.nonlinear_IV.model = True, law
        p.simulation.disable_fast_nonlinear_IV = not by_products
        model = network(sizes, lambda a, b: layers.AnalogLinear(p, a, b, bias_rows=1)).train()

        def written() -> None:  # the weights, which a training changes
            for layer in list(model)[::2]:
                layer.core.set_matrix(layer.form_matrix().detach())  # type: ignore[union-attr, operator]

        how = "by products" if by_products else "one device at a time, without spread"
        what = f"noise of readings, I-V law {how}; gradients are those of a linear layer"
        return what, step(model, sizes, batch, written)

    return _version(), {name: task(*law) for name, law in LAWS.items()}


def _version() -> str:
    """Return the version of what is installed, or of the checkout that it is imported from."""
    try:
        return importlib.metadata.version("CrossSim")
    except importlib.metadata.PackageNotFoundError:
        folder = Path(str(importlib.import_module("simulator").__file__)).parents[1]
        lines = (folder / "pyproject.toml").read_text().splitlines()
        return next((line.partition('"')[2].rstrip('"') for line in lines if line.startswith("version")), "unknown")


if __name__ == "__main__":
    serve("CrossSim", make)
