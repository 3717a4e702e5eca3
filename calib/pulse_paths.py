"""Energy along a train of pulses, and the energy after which it first reaches a conductance."""

import numpy as np


def cumulative(drive: np.ndarray, conductance: np.ndarray) -> np.ndarray:
    """Return the energy [J] (..., reading) since the first reading.

    Parameters
    ----------
    drive : (..., step) V^2 t [V^2 s] of all pulses between two readings, or one for all steps.
    conductance : (..., reading) [S]; pulses meet the mean of the readings before and after them.
    """
    steps = drive * (conductance[..., :-1] + conductance[..., 1:]) / 2
    return np.concatenate([np.zeros_like(steps[..., :1]), np.cumsum(steps, axis=-1)], axis=-1)


def energy_to(points: np.ndarray, conductance: np.ndarray, spent: np.ndarray) -> np.ndarray:
    """Return the energy [J] after which a rising train first has the conductances `points` [S].

    Linear between readings; 0 up to the first reading's, and all of the train's where it does not get there.

    Parameters
    ----------
    points : (point,) [S].
    conductance, spent : (reading,) [S] and [J] of the train.
    """
    highest = np.maximum.accumulate(conductance)
    reading = np.searchsorted(highest, points)  # the first that is as high
    found = np.full(len(points), float(spent[-1]))
    found[reading == 0] = 0.0
    here = (reading > 0) & (reading < len(highest))
    after = reading[here]
    below, above = highest[after - 1], highest[after]
    share = (points[here] - below) / (above - below)
    found[here] = spent[after - 1] + share * (spent[after] - spent[after - 1])
    return found
