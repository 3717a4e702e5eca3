"""Devices that follow any conduction law: shapes scatter about the middle of where devices are found."""

import numpy as np

from calib.device_model import ShapeLaw
from calib.iv_models import iv_model
from calib.nonidealities.iv import IV
from tests.simple_devices import LN_R

_REFERENCE_VOLTAGE = {"fowler-nordheim": 0.4}  # [V]; the law carries no current at 0.1 V
_SERIES = {"fowler-nordheim": 3e3}  # [Ohm]


def population(name: str, *, spread: float = 0.08, form: str = "anchored", v_max: float = 0.5) -> ShapeLaw:
    """Return a population of resistances 0.4 to 2 MOhm whose shapes have the standard deviation `spread`.

    In the logarithm of positive parameters, and of the typical range of the others; the first shape follows ln R, the
    first two are correlated. In the paper's form the scale scatters by 0.1, less what keeps R.
    """
    law, plain = iv_model(name), name.partition("+")[0]
    middle, deviation = [], []
    for parameter in law.parameters:
        low, high = parameter.typical
        if parameter.transform == "log":
            middle.append(np.log(_SERIES.get(plain, 3e4)) if parameter.name == law.series else np.log(low * high) / 2)
            deviation.append(spread)
        else:
            middle.append((low + high) / 2)
            deviation.append(spread * (high - low))
    centre = float(np.mean(LN_R))
    slope = np.zeros(len(middle))
    v_ref = _REFERENCE_VOLTAGE.get(plain, 0.1)
    if law.shape:
        slope[1] = 0.2 * deviation[1]
    shape = {
        p.name: np.asarray(np.exp(m) if p.transform == "log" else m)
        for p, m in zip(law.parameters, middle, strict=True)
        if p.name != law.scale
    }
    middle[0] = float(np.log(law.anchor(np.exp(centre), v_ref, xp=np, **shape)))
    slope[0] = -1.0
    correlation = np.eye(len(middle))
    if len(middle) > 2:
        correlation[1, 2] = correlation[2, 1] = -0.6
    covariance = correlation * np.outer(deviation, deviation)
    return ShapeLaw(
        iv_model=name, form=form, reference_voltage=v_ref, parameters=law.parameter_names,
        transforms=tuple(p.transform for p in law.parameters), centres=np.array([centre]),
        intercept=(np.array(middle) - slope * centre)[None], slope=slope[None], covariance=covariance[None],
        ln_r_min=LN_R[0], ln_r_max=LN_R[1], v_min=0.0, v_max=v_max,
    )  # fmt: skip


def conduction(name: str, **options: object) -> IV:
    """Return the conduction of such devices."""
    return IV(population(name, **options))  # type: ignore[arg-type]
