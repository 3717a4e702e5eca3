"""The errors that calib raises for its users.

Every message says which input, what was found, what was expected and what to do. The command line prints the
message alone and exits with status 1; Python users catch `CalibError`.
"""


class CalibError(Exception):
    """Something that the user gave cannot be used as it is."""


class ReadError(CalibError):
    """A measurement file cannot be read, or not without being told more."""


class UnitError(CalibError):
    """A unit is unknown or does not fit the quantity."""


class FitError(CalibError):
    """The data do not support the fit that was asked for."""


class ModelError(CalibError):
    """A device model, a run or a results file does not conform to its contract."""


class OptionError(CalibError):
    """An option's value cannot be used."""
