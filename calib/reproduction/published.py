"""Published numbers that ours are set beside."""

from dataclasses import dataclass

from calib.reproduction.experiments import STANDARD, Cell

SOURCE = "Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784"
ROUNDING = 0.05
"""The published coefficients of the law are rounded, which alone moves currents by about this fraction."""


@dataclass(frozen=True)
class Published:
    """What the paper states of a training on a set-up.

    Attributes
    ----------
    error : median fraction of test images classified wrongly, a range, both ends equal for one number.
    efficiency : [1e12 s^-1 W^-1], None where none is given.
    calibrated : whether the error served to choose a number of the device model, so that ours is no prediction.
    note : what is uncertain about the published number.
    """

    error: tuple[float, float]
    efficiency: float | None = None
    calibrated: bool = False
    note: str = ""


_ABOUT = "stated as about 4 to 5 % for ideal and low-resistance devices together"

PUBLISHED: dict[Cell, Published] = {
    (STANDARD, "ideal"): Published((0.04, 0.05), note=_ABOUT),
    (STANDARD, "siox-low"): Published((0.04, 0.05), 0.715, note=_ABOUT),
    ("low", "siox-low"): Published((0.04, 0.05), note=_ABOUT),
    (STANDARD, "siox-high"): Published((0.416, 0.416), calibrated=True),
    ("high", "siox-high"): Published((0.091, 0.091), 234.0),
    ("high-l1", "siox-high"): Published((0.071, 0.071), 381.0),
}
