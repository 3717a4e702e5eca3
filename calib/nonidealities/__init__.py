"""Nonidealities of devices: one file per effect, applied in the order of their stages.

Listing the names imports no torch.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from calib import plugins
from calib.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

    from calib.nonidealities.base import Conditions, Nonideality

__all__ = ["STAGES", "from_device", "names", "nonideality", "order"]

STAGES = ("quantise", "program", "stuck", "retention", "disturb", "read", "conduction")
"""The order in which nonidealities act on a conductance, from writing it to the current that it passes."""


def names() -> list[str]:
    """Return the names of the nonidealities."""
    return plugins.names(__name__)


def nonideality(name: str) -> "type[Nonideality]":
    """Return the class of the nonideality called `name`.

    Raises
    ------
    OptionError
        When there is no such nonideality; the message lists those that there are.
    """
    return plugins.load(__name__, name, ("stage", "redraw", "from_device", "ideal"))


def order(members: "Iterable[Nonideality]") -> "tuple[Nonideality, ...]":
    """Sort nonidealities by stage.

    Raises
    ------
    OptionError
        When two of them share a stage or a stage is unknown.
    """
    ordered: dict[str, Nonideality] = {}
    for member in members:
        if member.stage not in STAGES:
            raise OptionError(f"'{member.name}' has stage '{member.stage}'; expected one of {', '.join(STAGES)}")
        if member.stage in ordered:
            raise OptionError(
                f"'{ordered[member.stage].name}' and '{member.name}' both act at the stage '{member.stage}'; "
                "give one of them (components of one spread are combined inside one nonideality)"
            )
        ordered[member.stage] = member
    return tuple(ordered[stage] for stage in STAGES if stage in ordered)


def from_device(
    tree: "xr.DataTree", conditions: "Conditions | None" = None, prefer: "Iterable[str]" = ()
) -> "tuple[Nonideality, ...]":
    """Return the nonidealities that a device model holds, in the order of their stages.

    Where several members of one stage find what they need in the model, the one of the largest `precedence` is taken.

    Parameters
    ----------
    tree : the device model.
    conditions : what has happened to the devices since they were programmed; nothing by default.
    prefer : names of members to take at their stage before others, for example 'empirical' instead of 'lognormal'.

    Raises
    ------
    OptionError
        When a preferred member is not known or the model lacks what it needs.
    """
    from calib.nonidealities.base import AS_PROGRAMMED

    now = AS_PROGRAMMED if conditions is None else conditions
    wanted = list(prefer)
    found: dict[str, list[Nonideality]] = {}
    for name in dict.fromkeys([*wanted, *names()]):
        kind = nonideality(name)
        if name not in wanted and kind.precedence < 0:
            continue
        member = kind.from_device(tree, now)
        if member is not None:
            found.setdefault(member.stage, []).append(member)
        elif name in wanted:
            raise OptionError(f"the device model has no data for '{name}'; leave it out, or fit it from such data")
    taken: list[Nonideality] = []
    for members in found.values():
        asked = [member for member in members if member.name in wanted]
        largest = max(member.precedence for member in members)
        taken += asked or [member for member in members if member.precedence == largest]
    return order(taken)
