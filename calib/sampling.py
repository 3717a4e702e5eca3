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
