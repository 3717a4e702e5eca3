"""Functions that numpy and torch lack and that laws share."""

from types import ModuleType

from calib.iv_models.base import Array

_SMALL = 0.03
"""|x| below which the series is used: it is exact to 1e-15 there, and the closed form loses digits of its slope."""
_SINH = (1.0, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880, 1 / 39916800)
_ASINH = (1.0, 1 / 6, 3 / 40, 5 / 112, 35 / 1152, 63 / 2816, 231 / 13312, 143 / 10240, 6435 / 557056)


def sinhc(x: Array, *, xp: ModuleType) -> tuple[Array, Array]:
    """Return f(x) and df/dx, f = sinh(z) / z with z = sqrt(x) for x >= 0, and asinh(z) / z with z = sqrt(-x) for x < 0.

    f(0) = 1, and f and its slope are continuous: both branches begin as 1 + x / 6. f grows with x everywhere.
    """
    small = abs(x) < _SMALL
    some_negative = bool((x < 0).any())
    z = xp.sqrt(xp.where(small, 1.0, xp.where(x < 0, -x, x) if some_negative else x))
    f = xp.sinh(z) / z
    slope = (xp.cosh(z) - f) / (2 * z * z)
    small_x = xp.where(small, x, 0.0)
    series, series_slope = _polynomial(_SINH, small_x)
    if some_negative:
        negative = x < 0
        f_negative = xp.arcsinh(z) / z
        slope = xp.where(negative, (f_negative - 1 / xp.sqrt(1 + z * z)) / (2 * z * z), slope)
        f = xp.where(negative, f_negative, f)
        series_negative = _polynomial(_ASINH, small_x)
        series = xp.where(negative, series_negative[0], series)
        series_slope = xp.where(negative, series_negative[1], series_slope)
    return xp.where(small, series, f), xp.where(small, series_slope, slope)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> tuple[Array, Array]:
    """Return a polynomial and its slope by Horner's rule."""
    value, slope = coefficients[-1], 0.0
    for coefficient in coefficients[-2::-1]:
        slope = value + x * slope
        value = coefficient + x * value
    return value, slope
