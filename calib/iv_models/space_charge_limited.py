"""Space-charge-limited current with trap filling."""

from types import ModuleType

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid

_TINY = 1e-30  # V: keeps ln|V| finite at 0 V, where the current vanishes all the same


class SpaceChargeLimited(IVModel):
    """Space-charge-limited current, I = g V (1 + child |V| + (|V| / v_tfl)^m).

    Thermal carriers conduct ohmically; injected ones add the Mott-Gurney (Child) current, proportional to V^2, with
    the share theta of them that traps leave free; where traps are distributed exponentially in energy with the
    temperature T_t, their filling adds a current proportional to V^(m + 1) with m = T_t / T (M. A. Lampert, Phys. Rev.
    103, 1648 (1956), doi 10.1103/PhysRev.103.1648; P. Mark, W. Helfrich, J. Appl. Phys. 33, 205 (1962),
    doi 10.1063/1.1728487):

        g = e n_0 mu area / d,    g child = (9/8) eps mu theta area / d^3.

    The three currents are added, which follows each where it prevails and is smooth between. v_tfl is the voltage at
    which the trap-filled current equals the ohmic one. child is fitted as it is, since a curve without a square part
    is the regular point child = 0; v_tfl and m are determined only by curves that enter the steep part.
    """

    name = "space-charge-limited"
    title = "space-charge-limited current with trap filling"
    parameters = (
        Parameter("g", "S", "conductance at vanishing voltage", lower=0.0, transform="log", typical=(1e-7, 1e-3)),
        Parameter("child", "1/V", "square-law current over ohmic current at 1 V", 0.0, 1e6, typical=(0.0, 2.0)),
        Parameter("v_tfl", "V", "voltage where trap-filled and ohmic current are equal", 1e-3, 1e3, "log", (0.3, 0.8)),
        Parameter("m", "1", "exponent T_t/T of trap filling", 1.0, 40.0, typical=(3.0, 8.0)),
    )
    scale = "g"
    correlated = "child, v_tfl and m, where the trap-filled current leaves the square law no range of its own"
    odd = True
    expression = "g*V*(1 + child*abs(V) + pow(abs(V)/v_tfl, m))"
    series_allowed = True
    start = StartGrid.product(
        {"child": -1.0, "v_tfl": 1.0},
        child=(0.0, 0.4, 1.5, 5.0, 30.0),
        v_tfl=(0.2, 0.3, 0.42, 0.57, 0.8, 1.1, 1.8),
        m=(1.5, 2.5, 4.0, 6.0, 9.0, 16.0),
    )
    latex = r"I = g\,V \left(1 + c|V| + \left(|V|/v_\mathrm{tfl}\right)^m\right)"
    source = "P. Mark, W. Helfrich, J. Appl. Phys. 33, 205 (1962), doi 10.1063/1.1728487"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        size = xp.abs(voltage)
        filled = xp.exp(parameters["m"] * (xp.log(size + _TINY) - xp.log(parameters["v_tfl"])))
        return parameters["g"] * voltage * (1 + parameters["child"] * size + filled)

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        size, m, ohmic = xp.abs(voltage), parameters["m"], parameters["g"] * voltage
        logarithm = xp.log(size + _TINY) - xp.log(parameters["v_tfl"])
        filled = xp.exp(m * logarithm)
        trapped, by_child = filled * ohmic, voltage * size
        return {
            "g": voltage * filled + parameters["child"] * by_child + (voltage + 0 * ohmic),
            "child": ohmic * size,
            "v_tfl": trapped * (-m / parameters["v_tfl"]),
            "m": trapped * logarithm,
        }

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        size, m = xp.abs(voltage), parameters["m"]
        filled = xp.exp(m * (xp.log(size + _TINY) - xp.log(parameters["v_tfl"])))
        return parameters["g"] * (1 + 2 * parameters["child"] * size + (m + 1) * filled)

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return voltage

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Take the best candidate of `start`, refine it."""
        return _guess.from_grid(self, voltage, current)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        if temperature is None:
            return {}
        meaning = f"temperature of the trap distribution at {temperature:g} K"
        return {"t_trap": (parameters["m"] * temperature, "K", meaning)}


member = SpaceChargeLimited()
