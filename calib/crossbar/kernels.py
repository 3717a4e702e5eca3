"""Compiled loops over devices and inputs, for laws that are an exponential of their coordinate.

What `calib.crossbar.exponential` and `calib.crossbar.encoding` compute with one pass over memory for each operation is
done here in one, with the same numbers to rounding. Needs numba; `calib.crossbar.compiled` says whether to use it. The
first call compiles for a second or two and keeps the result on disk, where there is a place for it.

Single precision has exp, expm1 and log of its own, of elementary operations alone, so that the compiler vectorises
them: after Cody & Waite, Software Manual for the Elementary Functions (1980), x = n ln 2 + r with |r| <= ln 2 / 2 and
a polynomial in r; to 2 units in the last place. exp saturates at e^-87 and e^88.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from calib.nonidealities.base import Z_MAX

_CHUNK = 1024
"""Devices of which intermediate numbers are kept in the innermost cache."""

# Fused multiplication and addition, and no distinction of -0; sums may be reordered where a loop adds up.
_EXACT = {"contract", "nsz"}
_REORDERED = _EXACT | {"reassoc"}

(
    INTERCEPT, SLOPE, DEVIATION, LEAST_LN_R, LARGEST_LN_R, LOWER, UPPER, FIRST_BY_GAMMA, FIRST, RATIO_BY_GAMMA, RATIO
) = range(11)  # fmt: skip
"""Places in `constants`: t = intercept + slope ln R + deviation z with ln R held between two ends, gamma = t or exp(t)
held between two, D_0 = G exp(FIRST_BY_GAMMA gamma + FIRST), q = exp(RATIO_BY_GAMMA gamma + RATIO) - 1."""


def _function(reorders: bool = False) -> Callable:
    return njit(fastmath=_REORDERED if reorders else _EXACT, error_model="numpy", nogil=True)


def _kernel(reorders: bool = False) -> Callable:
    def compile_lazily(function: Callable) -> Callable:
        options = {"fastmath": _REORDERED if reorders else _EXACT, "error_model": "numpy", "nogil": True}
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to keep it in
            return njit(**options)(function)

    return compile_lazily


@intrinsic
def _bits_of(context, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _number_of(context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


_f = np.float32
_LOG2_E, _HALF, _ONE = _f(1.4426950408889634), _f(0.5), _f(1)
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(-2.12194440e-4)
_LEAST, _LARGEST = _f(-87.0), _f(88.0)
_E2, _E3, _E4, _E5, _E6, _E7 = (_f(1 / n) for n in (2, 6, 24, 120, 720, 5040))
# log(1 + f) = f - f^2 / 2 + f^3 P(f) on sqrt(1/2) to sqrt(2): the minimax polynomial of Moshier's Cephes library.
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (
    _f(c) for c in (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
                    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)
)  # fmt: skip
_ROOT_HALF_BITS, _MANTISSA, _BIAS = np.int32(0x3F3504F3), np.int32(23), np.int32(127)
_NAN, _INFINITY = _f(np.nan), _f(np.inf)


@_function()
def _power_and_rest(x) -> Any:
    """Return 2^n and exp(r) - 1 with exp(x) = 2^n exp(r)."""
    x = min(max(x, _LEAST), _LARGEST)
    n = np.floor(x * _LOG2_E + _HALF)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = ((((_E7 * r + _E6) * r + _E5) * r + _E4) * r + _E3) * r + _E2
    return _number_of(np.int32((np.int32(n) + _BIAS) << _MANTISSA)), p * (r * r) + r  # type: ignore[call-arg]


@_function()
def _exp_single(x):
    power, rest = _power_and_rest(x)
    return power * rest + power


@_function()
def _expm1_single(x):
    power, rest = _power_and_rest(x)
    return power * rest + (power - _ONE)


@_function()
def _log_single(x):
    bits = _bits_of(x)  # type: ignore[call-arg]
    n = np.int32(np.int32(bits - _ROOT_HALF_BITS) >> _MANTISSA)
    f = _number_of(np.int32(bits - np.int32(n << _MANTISSA))) - _ONE  # type: ignore[call-arg]
    p = (((((((_L0 * f + _L1) * f + _L2) * f + _L3) * f + _L4) * f + _L5) * f + _L6) * f + _L7) * f + _L8
    square, power = f * f, np.float32(n)
    found = (f + (p * f * square + _LN2_LOW * power - _HALF * square)) + _LN2_HIGH * power
    return found if x > 0 else (-_INFINITY if x == 0 else _NAN)


def exp(x):
    """Return e^x; only for compiled code."""
    return np.exp(x)


def expm1(x):
    """Return e^x - 1; only for compiled code."""
    return np.expm1(x)


def log(x):
    """Return ln x; only for compiled code."""
    return np.log(x)


def _for_both(function: Callable, single: Callable, double: Callable) -> None:
    @overload(function)
    def chosen(x):
        if x == types.float32:
            return lambda x: single(x)
        return lambda x: double(x)


_for_both(exp, _exp_single, np.exp)
_for_both(expm1, _expm1_single, np.expm1)
_for_both(log, _log_single, np.log)


@_function()
def _gammas(source, deviates, offset, ln_inverse, constants, is_log, gamma, by_ln_r):
    """Write the parameter of each device and its derivative by ln R."""
    intercept, slope, deviation = constants[INTERCEPT], constants[SLOPE], constants[DEVIATION]
    least, largest, lower, upper = constants[LEAST_LN_R], constants[LARGEST_LN_R], constants[LOWER], constants[UPPER]
    z_max, zero = constants.dtype.type(Z_MAX), constants.dtype.type(0)  # numba takes 0 and 1 for double precision
    for i in range(len(gamma)):
        ln_r = ln_inverse - log(source[i] + offset)
        held = min(max(ln_r, least), largest)
        z = min(max(deviates[i], -z_max), z_max)
        by_ln_r[i] = slope if held == ln_r else zero
        gamma[i] = intercept + deviation * z + slope * held
    if is_log:
        for i in range(len(gamma)):
            gamma[i] = exp(gamma[i])
            by_ln_r[i] *= gamma[i]
    for i in range(len(gamma)):
        held = min(max(gamma[i], lower), upper)
        by_ln_r[i] = by_ln_r[i] if held == gamma[i] else zero
        gamma[i] = held


@_function()
def _ratios(gamma, constants, q):
    by_gamma, constant = constants[RATIO_BY_GAMMA], constants[RATIO]
    for i in range(len(q)):
        q[i] = expm1(by_gamma * gamma[i] + constant)


@_function()
def _firsts(gamma, constants, first):
    by_gamma, constant = constants[FIRST_BY_GAMMA], constants[FIRST]
    for i in range(len(first)):
        first[i] = exp(by_gamma * gamma[i] + constant)


@_function()
def _scaled(source, offset, first, d):
    for i in range(len(d)):
        d[i] = (source[i] + offset) * first[i]


@_function()
def _multiply(d, q):
    for i in range(len(d)):
        d[i] *= q[i]


@_function()
def _set(out, d, factor):
    for i in range(len(d)):
        out[i] = factor * d[i]


@_function()
def _add(out, d, factor):
    for i in range(len(d)):
        out[i] += factor * d[i]


@_function(reorders=True)
def _add_sums(d, sums):
    """Add the sum of each row of d (word_line, bit_line), which are flat, to `sums`."""
    size = len(d) // len(sums)
    for row in range(len(sums)):
        total = sums[row]
        for i in range(row * size, (row + 1) * size):
            total += d[i]
        sums[row] = total


@_function()
def _flat(values):
    return values.reshape((values.shape[0], values.shape[1] * values.shape[2]))


@_kernel()
def draw(source, deviates, factors, offset, ln_inverse, constants, is_log, out, kept, power):
    """Write sum_group factor D, the power's sum over groups and bit lines of D, and what the gradient needs.

    Parameters
    ----------
    source, deviates : (group, word_line, bit_line) weights, or conductances [S] with offset and ln_inverse 0.
    factors : of the groups.
    offset, ln_inverse : g_off / k_G and ln(1 / k_G): G = k_G (w + offset).
    constants, is_log : see `INTERCEPT` and the others; gamma = exp(t) if is_log.
    out : (K, word_line, bit_line) sum_group factor D / k_G.
    kept : (3, group, word_line, bit_line) D_0 k_G / G, q and d gamma / d ln R.
    power : (K, word_line), or (0, 0) where it is not wanted.
    """
    groups, word_lines, bit_lines = source.shape
    weights, z, first, q, by_ln_r = _flat(source), _flat(deviates), _flat(kept[0]), _flat(kept[1]), _flat(kept[2])
    total = _flat(out)
    at_once = max(1, _CHUNK // bit_lines) * bit_lines
    room, room_gamma = np.empty(at_once, source.dtype), np.empty(at_once, source.dtype)
    power[:] = 0
    for start in range(0, word_lines * bit_lines, at_once):
        stop = min(word_lines * bit_lines, start + at_once)
        d, gamma = room[: stop - start], room_gamma[: stop - start]
        for g in range(groups):
            w, ratio, factor = weights[g, start:stop], q[g, start:stop], factors[g]
            _gammas(w, z[g, start:stop], offset, ln_inverse, constants, is_log, gamma, by_ln_r[g, start:stop])
            _ratios(gamma, constants, ratio)
            _firsts(gamma, constants, first[g, start:stop])
            _scaled(w, offset, first[g, start:stop], d)
            for k in range(len(out)):
                if k:
                    _multiply(d, ratio)
                if g:
                    _add(total[k, start:stop], d, factor)
                else:
                    _set(total[k, start:stop], d, factor)
                if len(power):
                    _add_sums(d, power[k, start // bit_lines : stop // bit_lines])


@_function()
def _horner(value, slope, q, e, factor):
    """Horner's rule with the derivative: slope <- slope q + value, value <- value q + factor e."""
    for i in range(len(q)):
        slope[i] = slope[i] * q[i] + value[i]
        value[i] = value[i] * q[i] + factor * e[i]


@_function()
def _set_zero(values):
    for i in range(len(values)):
        values[i] = 0


@_function()
def _add_to_rows(values, rows):
    """Add a number to each row of values (word_line, bit_line), which are flat."""
    size = len(values) // len(rows)
    for row in range(len(rows)):
        for i in range(row * size, (row + 1) * size):
            values[i] += rows[row]


@_function(reorders=True)
def _by_source(value, slope, q, first, by_ln_r, source, offset, constants, result):
    """Write dL/dw of devices and return sums of dL/dln R and of dL/dw."""
    by_gamma, step = constants[FIRST_BY_GAMMA], constants[RATIO_BY_GAMMA]
    total, total_by_ln_r = value.dtype.type(0), value.dtype.type(0)
    for i in range(len(value)):
        gradient = (by_gamma * value[i] + step * (slope[i] + q[i] * slope[i])) * by_ln_r[i] * first[i]
        found = value[i] * first[i] - gradient
        result[i] = found
        total += found
        total_by_ln_r += gradient * (source[i] + offset)
    return total_by_ln_r, total


@_kernel()
def gradient(grad, power, source, factors, offset, constants, kept, result):
    """Write dL/dw (group, word_line, bit_line) and return the sums of dL/dln R and of dL/dw over all devices.

    Parameters
    ----------
    grad : (K, word_line, bit_line) dL/d`out` of `draw`.
    power : (K, word_line) dL/d`power` of `draw`, or (0, 0) where there is none.
    others : see `draw`.
    """
    groups, word_lines, bit_lines = source.shape
    weights, first, q, by_ln_r = _flat(source), _flat(kept[0]), _flat(kept[1]), _flat(kept[2])
    found, by_out = _flat(result), _flat(grad)
    at_once = max(1, _CHUNK // bit_lines) * bit_lines
    room, room_slope = np.empty(at_once, source.dtype), np.empty(at_once, source.dtype)
    total = total_by_ln_r = 0.0
    for start in range(0, word_lines * bit_lines, at_once):
        stop = min(word_lines * bit_lines, start + at_once)
        value, slope = room[: stop - start], room_slope[: stop - start]
        for g in range(groups):
            ratio = q[g, start:stop]
            _set_zero(value)
            _set_zero(slope)
            for k in range(len(grad) - 1, -1, -1):
                _horner(value, slope, ratio, by_out[k, start:stop], factors[g])
                if len(power):
                    _add_to_rows(value, power[k, start // bit_lines : stop // bit_lines])
            part_by_ln_r, part = _by_source(
                value, slope, ratio, first[g, start:stop], by_ln_r[g, start:stop], weights[g, start:stop], offset,
                constants, found[g, start:stop],
            )  # fmt: skip
            total_by_ln_r += part_by_ln_r
            total += part
    return total_by_ln_r, total


(COORDINATE_SCALE, COORDINATE_POWER, GAMMA_0, LN_VOLTAGE, START, INVERSE_STEP, LEAST_INPUT) = range(7)
"""Places in the constants of inputs: s = COORDINATE_SCALE max(|x|, LEAST_INPUT)^COORDINATE_POWER, u = (s - START)
INVERSE_STEP, B_0 = x exp(GAMMA_0 s + LN_VOLTAGE)."""


@_function()
def _coordinates(x, constants, s):
    scale, power, least = constants[COORDINATE_SCALE], constants[COORDINATE_POWER], constants[LEAST_INPUT]
    if power == 0.5:
        for i in range(len(s)):
            s[i] = scale * np.sqrt(max(abs(x[i]), least))
    else:
        for i in range(len(s)):
            s[i] = scale * exp(power * log(max(abs(x[i]), least)))


@_function()
def _profiles(s, constants, profile):
    gamma_0, constant = constants[GAMMA_0], constants[LN_VOLTAGE]
    for i in range(len(s)):
        profile[i] = exp(gamma_0 * s[i] + constant)


@_function()
def _next_basis(previous, s, constants, k, out):
    """Write B_k = B_(k-1) (u - k + 1) / k."""
    slope = constants[INVERSE_STEP] / k
    constant = -constants[START] * slope - (k - 1) / k
    for i in range(len(s)):
        out[i] = previous[i] * (s[i] * slope + constant)


@_kernel()
def encode(x, constants, full_scale, out):
    """Write the basis functions (row, K, word_line) [V] of inputs (row, in), fractions of the full scale.

    Parameters
    ----------
    constants : see `COORDINATE_SCALE` and the others.
    full_scale : (K,) basis functions of one more word line at full scale, or empty.
    """
    size = x.shape[1]
    s, profile = np.empty(size, x.dtype), np.empty(size, x.dtype)
    for row in range(len(x)):
        _coordinates(x[row], constants, s)
        _profiles(s, constants, profile)
        for i in range(size):
            out[row, 0, i] = x[row, i] * profile[i]
        for k in range(1, out.shape[1]):
            _next_basis(out[row, k - 1, :size], s, constants, x.dtype.type(k), out[row, k, :size])
        for k in range(len(full_scale)):
            out[row, k, size] = full_scale[k]


@_function()
def _horner_of_inputs(value, slope, s, constants, k, e):
    """Horner's rule with w = (u - k + 1) / k and the derivative by u: slope <- value / k + slope w, value likewise."""
    by_s = constants[INVERSE_STEP] / k
    constant, share = -constants[START] * by_s - (k - 1) / k, 1 / k
    for i in range(len(s)):
        w = s[i] * by_s + constant
        slope[i] = slope[i] * w + value[i] * share
        value[i] = value[i] * w + e[i]


@_kernel()
def encode_gradient(grad, x, constants, result):
    """Write dL/dx (row, in) of dL/dB (row, K, word_line)."""
    size, count = x.shape[1], grad.shape[1]
    s, profile = np.empty(size, x.dtype), np.empty(size, x.dtype)
    value, slope = np.empty(size, x.dtype), np.empty(size, x.dtype)
    power, gamma_0, inverse_step = constants[COORDINATE_POWER], constants[GAMMA_0], constants[INVERSE_STEP]
    for row in range(len(x)):
        _coordinates(x[row], constants, s)
        _profiles(s, constants, profile)
        _set_zero(slope)
        for i in range(size):
            value[i] = grad[row, count - 1, i]
        for k in range(count - 1, 0, -1):
            _horner_of_inputs(value, slope, s, constants, x.dtype.type(k), grad[row, k - 1, :size])
        for i in range(size):
            steep = slope[i] * inverse_step + gamma_0 * value[i]
            result[row, i] = (value[i] + power * s[i] * steep) * profile[i]
