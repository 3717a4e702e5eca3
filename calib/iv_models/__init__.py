"""Conduction laws: one file per law, one equation for fit, training and export."""

from calib import plugins
from calib.errors import OptionError
from calib.iv_models.base import IVModel, Parameter, exponential_parameter

__all__ = ["IVModel", "Parameter", "all_names", "exponential_parameter", "iv_model", "names"]

_REQUIRED = ("parameters", "scale", "current", "jacobian", "coordinate", "expression")


def names() -> list[str]:
    """Return the names of the plain conduction laws."""
    return plugins.names(__name__)


def all_names() -> list[str]:
    """Return the names of the conduction laws, each followed by that with a series resistance where it is physical."""
    found = []
    for name in names():
        found.append(name)
        if plugins.load(__name__, name, _REQUIRED).series_allowed:
            found.append(f"{name}+series")
    return found


def iv_model(name: str) -> IVModel:
    """Return the conduction law called `name`; 'LAW+series' is LAW with a series resistance.

    Raises
    ------
    OptionError
        When there is no such law (the message lists those that there are), or a series resistance makes no sense.
    """
    plain, plus, suffix = name.partition("+")
    if plus and suffix != "series":
        raise OptionError(f"the law '{name}' is not known: '+series', a series resistance, is all that can be added")
    law = plugins.load(__name__, plain, _REQUIRED)
    if not plus:
        return law
    if not law.series_allowed:
        raise OptionError(
            f"the law '{plain}' takes no series resistance: {law.no_series_because}; use '{plain}', or another law"
        )
    from calib.iv_models._series import with_series

    return with_series(law)
