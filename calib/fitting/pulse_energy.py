"""Energy of trains of pulses whose amplitudes and widths were measured."""

import numpy as np

from calib.fitting.pulse_trains import Train
from calib.pulse_paths import cumulative, energy_to

POINTS = 33


def add_energy(variables: dict[str, tuple], trains: list[Train], warnings: list[str]) -> None:
    """Add the energy that each train takes to each conductance, E = sum over pulses of V^2 G t.

    G is the mean of the readings before and after a pulse, at the voltage of reading: a device that conducts better at
    the voltage of the pulse takes more. The energy runs from the train's first reading; a falling train is at a
    conductance when it is as low. Nothing is added where amplitude or width is not known.

    Parameters
    ----------
    variables : of the node pulse; conductances are in siemens.
    trains : those that change the conductance.
    warnings : sentences are added about trains that are left out.
    """
    known = [train for train in trains if train.drive is not None and np.isfinite(train.drive[1:]).all()]
    if not known:
        return
    if len(known) < len(trains):
        warnings.append(
            f"energy of pulses: {len(trains) - len(known)} of {len(trains)} trains lack amplitude or width and are "
            "left out of it"
        )
    readings = np.concatenate([train.conductance for train in known])
    points = np.unique(np.quantile(np.maximum(readings, 0.0), np.linspace(0, 1, POINTS)))
    table = np.stack([_energy_of(train, points) for train in known])
    one = {"units": "S", "long_name": "conductances that the trains are taken to"}
    variables["pulse_energy_conductance"] = ("pulse_energy_point", points, one)
    words = {"units": "J", "long_name": "energy of a train's pulses up to a conductance, V^2 G t of each"}
    variables["pulse_energy"] = (("pulse_energy_train", "pulse_energy_point"), table, words)
    variables["pulse_energy_device"] = (
        "pulse_energy_train",
        [train.device for train in known],
        {"long_name": "device"},
    )
    variables["pulse_energy_polarity"] = (
        "pulse_energy_train",
        [train.polarity for train in known],
        {"long_name": "direction"},
    )


def _spent(train: Train) -> np.ndarray:
    drive = np.asarray(train.drive)[1:]
    return cumulative(drive, np.maximum(train.conductance, 0.0))


def _energy_of(train: Train, points: np.ndarray) -> np.ndarray:
    if train.polarity == "depression":
        return energy_to(-points[::-1], -train.conductance, _spent(train))[::-1]
    return energy_to(points, train.conductance, _spent(train))
