"""Draws from a device model in numpy: resistances and the conduction law's parameters of single devices."""

import numpy as np
import xarray as xr

from calib.device_model import ShapeLaw, shape_law
from calib.iv_models import iv_model


def sample_resistance(tree: xr.DataTree, state: str, n: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ln(R / Ohm) of `n` devices from the empirical quantiles of a state (inverse of the distribution function).

    Raises
    ------
    ModelError
        When the model has no I-V law, or not that state.
    """
    shape_law(tree, state)  # says what is missing
    node = tree["iv"].to_dataset().sel(state=state)
    return np.interp(generator.random(n), node["quantile"].values, node["ln_r_quantile"].values)


def sample_parameters(law: ShapeLaw, ln_r: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the law's parameters of devices with the given ln(R / Ohm).

    In the anchored form the shape parameters are drawn given ln R and the scale is solved so that I(V_ref) = V_ref / R
    exactly; in the paper's form all parameters are drawn given ln R, by the square root of their covariance's
    eigenvalues (it is nearly singular).
    """
    model = iv_model(law.iv_model)
    mean, covariance = law.at(ln_r)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))[..., None, :]
    t = mean + np.einsum("...ij,...j->...i", root, generator.standard_normal(mean.shape))
    values = {
        name: np.exp(t[..., k]) if law.transforms[k] == "log" else t[..., k] for k, name in enumerate(law.parameters)
    }
    if law.form == "anchored":
        shape = {name: values[name] for name in model.shape}
        values[model.scale] = model.anchor(np.exp(ln_r), law.reference_voltage, xp=np, **shape)
    return values


def sample_devices(tree: xr.DataTree, state: str, n: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw ln(R / Ohm) and the law's parameters of `n` devices in a state."""
    generator = np.random.default_rng(seed)
    ln_r = sample_resistance(tree, state, n, generator)
    return ln_r, sample_parameters(shape_law(tree, state), ln_r, generator)


def sample_population(
    tree: xr.DataTree, state: str, n: int, generator: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw ln(R / Ohm) and the law's parameters of `n` devices as they are found in a state, stuck ones among them.

    A device is stuck with the model's probability; its conductance is then one of the kernel density of the stuck
    devices, whatever the state, and its law that of its resistance.
    """
    ln_r = sample_resistance(tree, state, n, generator)
    parameters = sample_parameters(shape_law(tree, state), ln_r, generator)
    node = tree["stuck"].to_dataset() if "stuck" in tree.children else None
    if node is None or not int(node["n_stuck"]):
        return ln_r, parameters
    stuck = np.flatnonzero(generator.random(n) < float(node["probability"]))
    centres = generator.choice(node["conductance"].values, len(stuck))
    g = np.abs(centres + float(node["bandwidth"]) * generator.standard_normal(len(stuck)))
    ln_r[stuck] = -np.log(np.maximum(g, 1e-300))
    for name, values in sample_parameters(shape_law(tree), ln_r[stuck], generator).items():
        parameters[name][stuck] = values
    return ln_r, parameters
