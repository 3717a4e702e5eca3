"""Taking effects of a device and its array away, one by one, and applying them alone.

An effect keeps its random numbers whatever else acts, because each nonideality of a chip has a stream of its own. So
two sets of hardware that differ in one effect are compared on the same chips.

=================== =================================================================================================
quantisation        the nearest of a few levels
programming spread  lognormal, empirical or of write and verify
stuck devices
retention           drift or relaxation since programming, and its compensation
read disturb
read noise          noise of readings, telegraph noise among it
I-V nonlinearity    without it every device is ohmic, of the same R = V_ref / I(V_ref); the spread goes with it
I-V spread          without it every device follows the mean law at its R
line resistance     of word and bit lines, drivers, DAC, ADC: see `calib.crossbar.array`
=================== =================================================================================================
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from calib.crossbar.array import Array
from calib.crossbar.devices import Devices
from calib.errors import OptionError
from calib.nonidealities.base import ConductanceNonideality, Conduction, ReadNonideality
from calib.nonidealities.iv import IV

NONLINEARITY, IV_SPREAD, READ_NOISE = "I-V nonlinearity", "I-V spread", "read noise"
STAGES = {
    "quantise": "quantisation",
    "program": "programming spread",
    "stuck": "stuck devices",
    "retention": "retention",
    "disturb": "read disturb",
}
"""Effects on conductances, by the stage of the nonideality."""


@dataclass(frozen=True, eq=False)
class Hardware:
    """What a network runs on.

    Attributes
    ----------
    devices : the devices.
    array : size of tiles, lines and converters.
    """

    devices: Devices
    array: Array

    @property
    def effects(self) -> tuple[str, ...]:
        """Names of the effects that act, in the order in which they do."""
        found = [STAGES[member.stage] for member in self.devices.stages if not member.is_ideal]
        if self.devices.conduction.law.shape:
            found.append(NONLINEARITY)
            if has_spread(self.devices.conduction):
                found.append(IV_SPREAD)
        if self.devices.read is not None:
            found.append(READ_NOISE)
        return (*found, *self.array.effects)

    def describe(self, effect: str) -> str:
        """Return an effect and its size in a few words."""
        for member in self.devices.stages:
            if STAGES[member.stage] == effect:
                return member.describe()
        if effect == READ_NOISE and self.devices.read is not None:
            return self.devices.read.describe()
        if effect == NONLINEARITY:
            return self.devices.conduction.describe()
        return effect

    def only(self, effects: Iterable[str]) -> "Hardware":
        """Return hardware with none but these effects; the spread of the I-V law needs the law.

        Raises
        ------
        OptionError
            When the hardware has no such effect.
        """
        kept = set(effects)
        for name in sorted(kept - set(self.effects)):
            raise OptionError(f"there is no effect '{name}' here; expected some of {', '.join(self.effects)}")
        devices = self.devices
        conduction = devices.conduction
        if not kept & {NONLINEARITY, IV_SPREAD}:
            conduction = conduction.ideal()
        elif IV_SPREAD not in kept and isinstance(conduction, IV):
            conduction = mean_law(conduction)
        stages = tuple(member for member in devices.stages if STAGES[member.stage] in kept)
        changed = replace(
            devices, stages=stages, conduction=conduction, read=devices.read if READ_NOISE in kept else None, plans={}
        )
        return Hardware(changed, self.array.only(*(name for name in self.array.effects if name in kept)))

    def without(self, effect: str) -> "Hardware":
        """Return hardware with all effects but this one; without the I-V nonlinearity its spread is gone too."""
        gone = {effect, IV_SPREAD} if effect == NONLINEARITY else {effect}
        return self.only(name for name in self.effects if name not in gone)

    def alone(self, effect: str) -> tuple["Hardware", "Hardware"]:
        """Return hardware with this effect alone, and what it is compared with: none, for the I-V spread the law."""
        if effect == IV_SPREAD:
            return self.only([NONLINEARITY, IV_SPREAD]), self.only([NONLINEARITY])
        return self.only([effect]), self.only([])

    def with_member(self, member: ConductanceNonideality) -> "Hardware":
        """Return hardware with a nonideality at its stage, in the place of the one that is there."""
        from calib import nonidealities

        others = [other for other in self.devices.stages if other.stage != member.stage]
        stages = tuple(m for m in nonidealities.order([*others, member]) if isinstance(m, ConductanceNonideality))
        return Hardware(replace(self.devices, stages=stages, plans={}), self.array)

    def with_conduction(self, conduction: Conduction) -> "Hardware":
        """Return hardware of devices with another law."""
        return Hardware(replace(self.devices, conduction=conduction, plans={}), self.array)

    def with_read_noise(self, read: ReadNonideality | None) -> "Hardware":
        """Return hardware with other noise of readings."""
        return Hardware(replace(self.devices, read=read, plans={}), self.array)


def has_spread(conduction: Conduction) -> bool:
    """Whether devices of equal R differ in their law."""
    return isinstance(conduction, IV) and bool(np.any(conduction.population.covariance))


def mean_law(conduction: IV) -> IV:
    """Return the law of which every device follows the mean line theta = intercept + slope ln R."""
    population = conduction.population
    return IV(replace(population, covariance=np.zeros_like(population.covariance)))
