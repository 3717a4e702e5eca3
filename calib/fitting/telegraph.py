"""Two-level telegraph noise: whether a trace shows it, and its levels and dwell times from a hidden two-state chain."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats

MINIMUM_READS = 200
FALSE_ALARM = 0.01
"""Chance that a Gaussian trace of any spectrum is said to have two levels."""
STAGES = (19, 199)
"""Surrogates of the first look, and in all; a trace that two of the first nineteen beat is let go."""
MINIMUM_JUMPS = 4
"""Dwells that each state must have completed."""
SEPARATION = 2.0
"""Distance of the levels in standard deviations of the noise about them."""
RESOLUTION_STEPS = 2.5
"""A jump of fewer steps of the instrument's resolution may be the resolution."""
WINDOW = 0.1
"""Moving average that the second look removes, as a fraction of the trace."""
CROWDED = 1e-3
"""Chance of jumps so unevenly spread over the trace, below which it is taken for a change of the device."""
ORDER = 8
"""Order of the autoregression that stands for coloured noise without levels."""
N_BINS = 64
N_EM = 30
BLOCK = 100
"""Traces that are tested together."""


@dataclass(frozen=True)
class Telegraph:
    """Telegraph noise of one trace.

    Attributes
    ----------
    found : whether the trace shows it by all rules.
    p_value : share of Gaussian surrogates with the trace's spectrum that look at least as two-levelled.
    amplitude : distance of the levels, in the trace's unit.
    noise : standard deviation about the levels.
    dwell, dwell_bound : (2,) mean reads in the low and the high state, with 95 % intervals (2, 2).
    n_dwells : (2,) completed dwells.
    state : (n,) probability of the high state, empty where no chain was fitted.
    status : sentence.
    """

    found: bool
    p_value: float
    amplitude: float
    noise: float
    dwell: np.ndarray
    dwell_bound: np.ndarray
    n_dwells: np.ndarray
    state: np.ndarray
    status: str


def telegraph(
    residuals: list[np.ndarray], generator: np.random.Generator, resolutions: np.ndarray | None = None
) -> list[Telegraph]:
    """Look for two-level telegraph noise in traces whose drift was removed.

    Test: the gain in log likelihood of a mixture of two normal distributions of equal width over one, compared with
    that of surrogates, which have the trace's spectrum with random coefficients and so are Gaussian with the same
    colour (J. Theiler et al., Physica D 58, 77 (1992), doi 10.1016/0167-2789(92)90102-S). It is made twice, on the
    trace and on the trace less its moving average, each at half of `FALSE_ALARM`.

    A trace that passes is still left to coloured noise where an autoregression alone has as small a BIC as the levels
    with an autoregression about them: a random walk, whose surrogates are no fair copies, fails this.

    Model: a hidden Markov chain of two states with normal noise of one width, fitted by expectation maximisation
    (L. Rabiner, Proc. IEEE 77, 257 (1989), doi 10.1109/5.18626). A dwell time's interval is that of the mean of n
    exponential times, 2 n tau / chi^2_{2 n}.

    Parameters
    ----------
    residuals : traces (n,) of any length.
    resolutions : the instrument's smallest step in each trace, 0 where it is finer than the noise.
    """
    resolutions = np.zeros(len(residuals)) if resolutions is None else resolutions
    found: list[Telegraph] = []
    tested = [len(x) >= MINIMUM_READS and bool(x.std() > 0) for x in residuals]
    looks = [(x, x - _slow(x)) for x, able in zip(residuals, tested, strict=True) if able]
    p_values = np.array([_p_values([pair[look] for pair in looks], generator) for look in (0, 1)])
    place = 0
    for x, able, resolution in zip(residuals, tested, resolutions, strict=True):
        if not able:
            short = len(x) < MINIMUM_READS
            found.append(_none(math.nan, f"fewer than {MINIMUM_READS} reads" if short else "its reads do not differ"))
            continue
        best = int(np.argmin(p_values[:, place]))
        p = min(2 * float(p_values[best, place]), 1.0)
        if p > FALSE_ALARM:
            found.append(_none(p, "its reads are not further from Gaussian than chance explains"))
        else:  # the moving average shortens long dwells, so the trace itself comes first
            chain = _chain_found(looks[place][0], p, float(resolution))
            found.append(chain if chain.found or not best else _chain_found(looks[place][1], p, float(resolution)))
        place += 1
    return found


def _slow(x: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter1d(x, max(int(WINDOW * len(x)), 21), mode="nearest")


def _none(p: float, status: str) -> Telegraph:
    nan2 = np.full(2, np.nan)
    return Telegraph(False, p, np.nan, np.nan, nan2, np.full((2, 2), np.nan), np.zeros(2, int), np.zeros(0), status)


def _chain_found(x: np.ndarray, p: float, resolution: float) -> Telegraph:
    mean, noise, stay, state = hidden_chain(x)
    amplitude = float(mean[1] - mean[0])
    high = state > 0.5
    change = np.flatnonzero(np.diff(high.astype(np.int8)))
    ends = high[change]  # the state that each completed dwell was in, the first one included
    n_dwells = np.array([int((~ends).sum()), int(ends.sum())])
    dwell = 1 / np.maximum(1 - stay, 1e-12)
    bound = np.array([_dwell_bound(tau, k) for tau, k in zip(dwell, n_dwells, strict=True)])
    if n_dwells.min() < MINIMUM_JUMPS:
        status = f"the reads lie at two levels, but each was left {n_dwells.min()} times, {MINIMUM_JUMPS} are needed"
    elif amplitude < SEPARATION * noise:
        status = f"two levels {amplitude / noise:.1f} standard deviations apart cannot be told from a broad peak"
    elif amplitude < RESOLUTION_STEPS * resolution:
        status = "the jumps are as small as the instrument's resolution"
    elif stats.kstest(change / (len(x) - 1), "uniform").pvalue < CROWDED:
        status = "the jumps crowd in one part of the trace"
    elif _coloured_instead(x, high, mean, stay):
        status = "a coloured Gaussian trace without levels describes it as well"
    else:
        return Telegraph(True, p, amplitude, noise, dwell, bound, n_dwells, state, "ok")
    return Telegraph(False, p, amplitude, noise, dwell, bound, n_dwells, state, status)


def _coloured_instead(x: np.ndarray, high: np.ndarray, mean: np.ndarray, stay: np.ndarray) -> bool:
    """Return whether autoregressive noise alone has no larger BIC than the chain's path with such noise about it."""
    moves = high[1:] != high[:-1]
    chance = stay[high[:-1].astype(int)]
    path = float(np.log(np.where(moves, 1 - chance, chance)).sum())
    with_levels = _innovations(x - mean[high.astype(int)]) - 2 * path + 4 * math.log(len(x))
    return with_levels >= _innovations(x)


def _innovations(x: np.ndarray) -> float:
    """Return n ln(variance of the innovations) of an autoregression of order `ORDER`."""
    y = x - x.mean()
    lagged = np.stack([y[ORDER - k : len(y) - k] for k in range(1, ORDER + 1)], axis=1)
    target = y[ORDER:]
    gram = lagged.T @ lagged
    weights = np.linalg.lstsq(gram, lagged.T @ target, rcond=None)[0]
    return len(x) * math.log(max(float(np.mean(np.square(target - lagged @ weights))), 1e-300))


def _dwell_bound(tau: float, count: int) -> tuple[float, float]:
    if count < 1:
        return math.nan, math.nan
    low, high = stats.chi2.ppf([0.025, 0.975], 2 * count)
    return 2 * count * tau / float(high), 2 * count * tau / float(low)


def resolution_of(values: np.ndarray) -> float:
    """Return the smallest step between reads where many reads are equal (the instrument's resolution), else 0."""
    distinct = np.unique(values)
    if len(distinct) > 0.2 * len(values) or len(distinct) < 2:
        return 0.0
    steps = np.diff(distinct)
    return float(np.median(steps[steps > 1e-9 * np.ptp(values)]))


def _p_values(traces: list[np.ndarray], generator: np.random.Generator) -> list[float]:
    """Return each trace's share of surrogates with at least its gain; more are drawn where that may be small."""
    result = []
    few = STAGES[0]
    for first in range(0, len(traces), BLOCK):
        block = traces[first : first + BLOCK]
        spectra = [np.abs(np.fft.rfft(x - x.mean())) for x in block]
        own = mixture_gain(np.concatenate([histogram(x[None]) for x in block]))
        drawn = [_surrogate_histograms(s, len(x), few, generator) for s, x in zip(spectra, block, strict=True)]
        beaten = (mixture_gain(np.concatenate(drawn)).reshape(len(block), few) >= own[:, None]).sum(axis=1)
        for x, spectrum, gain, count in zip(block, spectra, own, beaten, strict=True):
            total = few
            if count < 2:
                more = _surrogate_histograms(spectrum, len(x), STAGES[1] - few, generator)
                count, total = count + int((mixture_gain(more) >= gain).sum()), STAGES[1]
            result.append((int(count) + 1) / (total + 1))
    return result


def _surrogate_histograms(spectrum: np.ndarray, n: int, size: int, generator: np.random.Generator) -> np.ndarray:
    step = max(1, 2_000_000 // n)
    parts = [min(step, size - begin) for begin in range(0, size, step)]
    return np.concatenate([histogram(surrogates(spectrum, n, part, generator)) for part in parts])


def surrogates(spectrum: np.ndarray, n: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """Return (size, n) Gaussian traces: independent normal Fourier coefficients of the given absolute values' size."""
    shape = (size, len(spectrum))
    coefficients = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    return np.fft.irfft(coefficients * (spectrum / math.sqrt(2)), n, axis=1)


def histogram(x: np.ndarray) -> np.ndarray:
    """Return the share of reads of each row in 64 equal bins between -4 and 4 standard deviations about the mean."""
    rows, n = x.shape
    z = (x - x.mean(axis=1, keepdims=True)) / np.maximum(x.std(axis=1, keepdims=True), 1e-300)
    bins = np.clip(((z + 4) * (N_BINS / 8)).astype(int), 0, N_BINS - 1)
    counts = np.bincount((np.arange(rows)[:, None] * N_BINS + bins).ravel(), minlength=rows * N_BINS)
    return counts.reshape(rows, N_BINS) / n


def mixture_gain(weight: np.ndarray) -> np.ndarray:
    """Return the gain in log likelihood per read of two normal distributions of equal width over one, of each row.

    Parameters
    ----------
    weight : (row, bin) from `histogram`.
    """
    rows = len(weight)
    centre = (np.arange(N_BINS) + 0.5) * 8 / N_BINS - 4
    best = np.zeros(rows)
    first = np.square(weight @ centre)
    one = -0.5 * np.log(np.maximum(weight @ centre**2 - first, 1e-9)) - 0.5
    for share in (0.5, 0.15, 0.85):
        mu = np.stack(
            [np.full(rows, -math.sqrt((1 - share) / share)), np.full(rows, math.sqrt(share / (1 - share)))], 1
        )
        mu, part, variance = 0.8 * mu, np.tile([share, 1 - share], (rows, 1)), np.full(rows, 0.4)
        log = np.zeros((rows, N_BINS))
        for _ in range(N_EM):
            log_parts = np.log(part)[:, :, None] - 0.5 * np.log(variance)[:, None, None] - 0.5 * np.square(
                centre - mu[:, :, None]) / variance[:, None, None]  # fmt: skip
            log = np.logaddexp(log_parts[:, 0], log_parts[:, 1])
            responsible = np.exp(log_parts - log[:, None]) * weight[:, None]
            part = np.clip(responsible.sum(axis=2), 0.02, 0.98)
            mu = (responsible @ centre) / part
            variance = np.maximum((responsible * np.square(centre - mu[:, :, None])).sum(axis=(1, 2)), 0.01)
        best = np.maximum(best, (weight * log).sum(axis=1) - one)
    return best


def hidden_chain(x: np.ndarray, iterations: int = 60) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Fit a two-state hidden Markov chain with normal noise by expectation maximisation.

    Returns
    -------
    mean : (2,) levels, the lower one first.
    noise : standard deviation about them.
    stay : (2,) chance to stay in the state from one read to the next.
    state : (n,) probability of the high state.
    """
    middle = _threshold(x)
    high = x > middle
    mean = (
        np.array([x[~high].mean(), x[high].mean()]) if high.any() and not high.all() else np.quantile(x, [0.25, 0.75])
    )
    noise = max(float(np.sqrt(np.mean(np.square(x - mean[high.astype(int)])))), 1e-6 * float(np.ptp(x)) + 1e-300)
    stay = np.clip([1 - _leaves(~high), 1 - _leaves(high)], 0.02, 1 - 0.5 / len(x))
    previous = -math.inf
    state = high.astype(float)
    for step in range(iterations):
        weight, pair, likelihood = _expectation(x, mean, noise, stay)
        state = weight[:, 1]
        total = np.maximum(weight.sum(axis=0), 1e-9)
        mean = (weight * x[:, None]).sum(axis=0) / total
        noise = max(float(np.sqrt((weight * np.square(x[:, None] - mean)).sum() / len(x))), 1e-9 * float(np.ptp(x)))
        stay = np.clip(np.diag(pair) / np.maximum(pair.sum(axis=1), 1e-9), 1e-3, 1 - 0.1 / len(x))
        if likelihood - previous < 1e-6 * len(x) or (step > 10 and abs(mean[1] - mean[0]) < 0.75 * SEPARATION * noise):
            break
        previous = likelihood
    if mean[0] > mean[1]:
        mean, stay, state = mean[::-1], stay[::-1], 1 - state
    return mean, noise, stay, state


def _threshold(x: np.ndarray) -> float:
    """Return the value that splits reads into two groups with the least variance within (Otsu)."""
    ordered = np.sort(x)
    n = np.arange(1, len(x))
    total = np.cumsum(ordered)
    low, high = total[:-1] / n, (total[-1] - total[:-1]) / (len(x) - n)
    k = int(np.argmax(n * (len(x) - n) * np.square(high - low)))
    return float((ordered[k] + ordered[k + 1]) / 2)


def _leaves(inside: np.ndarray) -> float:
    """Return the share of reads in a state after which it is left."""
    stays = inside[:-1]
    return float((stays & ~inside[1:]).sum() / max(int(stays.sum()), 1))


def _expectation(
    x: np.ndarray, mean: np.ndarray, noise: float, stay: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the states' probabilities (n, 2), the expected transitions (2, 2) and the log likelihood.

    The products of 2 x 2 matrices M_t = A diag(b_t) are taken in blocks of about sqrt(n) reads, all blocks at once.
    """
    n = len(x)
    transition = np.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]])
    start = np.array([1 - stay[1], 1 - stay[0]]) / max(2 - stay.sum(), 1e-12)
    log_b = -0.5 * np.square((x[:, None] - mean) / noise)
    top = log_b.max(axis=1, keepdims=True)
    b = np.maximum(np.exp(log_b - top), 1e-200)
    forward, scale = _scan(transition[None] * b[1:, None, :], start * b[0])
    reverse = np.swapaxes(transition[None] * b[1:, None, :], 1, 2)[::-1]
    backward = _scan(reverse, np.ones(2))[0][::-1]
    weight = forward * backward
    weight /= weight.sum(axis=1, keepdims=True)
    pair = forward[:-1, :, None] * transition[None] * (b[1:] * backward[1:])[:, None, :]
    pair /= pair.sum(axis=(1, 2), keepdims=True)
    likelihood = scale + float(top.sum()) - n * math.log(noise)
    return weight, pair.sum(axis=0), likelihood


def _scan(matrices: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the rows start, start M_1, start M_1 M_2, ..., each scaled to sum one, and the log of the last scale."""
    n = len(matrices)
    length = max(int(math.sqrt(n)), 1)
    blocks = -(-n // length)
    padded = np.concatenate([matrices, np.tile(np.eye(2), (blocks * length - n, 1, 1))]).reshape(blocks, length, 2, 2)
    prefix = np.empty_like(padded)
    logs = np.zeros((blocks, length))
    running, log = np.tile(np.eye(2), (blocks, 1, 1)), np.zeros(blocks)
    for k in range(length):
        running = running @ padded[:, k]
        size = running.sum(axis=(1, 2))
        running = running / size[:, None, None]
        log = log + np.log(size)
        prefix[:, k], logs[:, k] = running, log
    entering = np.empty((blocks, 2))
    total = math.log(start.sum())
    vector = start / start.sum()
    for block in range(blocks):
        entering[block] = vector
        vector = vector @ prefix[block, -1]
        size = float(vector.sum())
        total += math.log(size) + float(logs[block, -1])
        vector = vector / size
    rows = np.einsum("bi,blij->blj", entering, prefix).reshape(-1, 2)[:n]
    rows = np.concatenate([(start / start.sum())[None], rows / rows.sum(axis=1, keepdims=True)])
    return rows, total
