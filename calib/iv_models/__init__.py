"""Conduction laws: one file per law, one equation for fit, training and export."""

from calib import plugins
from calib.iv_models.base import IVModel, Parameter, exponential_parameter

__all__ = ["IVModel", "Parameter", "exponential_parameter", "iv_model", "names"]


def names() -> list[str]:
    """Return the names of the conduction laws."""
    return plugins.names(__name__)


def iv_model(name: str) -> IVModel:
    """Return the conduction law called `name`.

    Raises
    ------
    OptionError
        When there is no such law; the message lists those that there are.
    """
    return plugins.load(__name__, name, ("parameters", "scale", "current", "jacobian", "coordinate", "expression"))
