"""Curves of any conduction law, drawn from its typical range."""

import numpy as np

from calib.iv_models import IVModel


def grid(law: IVModel, points: int, v_max: float = 1.0) -> np.ndarray:
    """Return voltages, of both signs for laws that are not odd."""
    if law.odd:
        return np.linspace(v_max / points, v_max, points)
    half = np.linspace(2 * v_max / points, v_max, points // 2)
    return np.concatenate([-half[::-1], half])


def draw(law: IVModel, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw parameters, (curve, 1), from the inner half of their typical ranges."""
    values = {}
    for p in law.parameters:
        low, high = np.log(p.typical) if p.transform == "log" else p.typical
        drawn = generator.uniform(low + 0.25 * (high - low), high - 0.25 * (high - low), (count, 1))
        values[p.name] = np.exp(drawn) if p.transform == "log" else drawn
    return values


def curves(
    law: IVModel, count: int, points: int, noise: float, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Return true parameters, and voltage, current and sigma (curve, point), with relative noise and a small floor."""
    generator = np.random.default_rng(seed)
    truth = draw(law, count, generator)
    voltage = np.broadcast_to(grid(law, points), (count, points))
    clean = np.broadcast_to(law.current(voltage, xp=np, **truth), voltage.shape)
    sigma = noise * np.abs(clean) + 1e-5 * np.abs(clean).max(1, keepdims=True)
    return truth, voltage, clean + sigma * generator.standard_normal(clean.shape), sigma
