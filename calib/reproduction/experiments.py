"""The experiments of Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784, as tables.

A *set-up* is a kind of array that networks are tested on, a *training* is one way to train a network, an *experiment*
is a list of trainings and the set-ups on which each is tested. A training that several experiments share is done once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from calib.errors import OptionError

HIDDEN_UNITS = 25
L1 = 1e-4
STANDARD = "standard"
Cell = tuple[str, str]
"""Names of a training and of a set-up that its networks are tested on."""


@dataclass(frozen=True)
class Setup:
    """Arrays that networks are tested on.

    Attributes
    ----------
    name : of the device model that is made for it.
    title : for tables and figures.
    base : bundled device model whose conductance range (and law) it has.
    law : whether devices follow the I-V law of `base`, or Ohm's.
    sigma : standard deviations of ln R at G_on and at G_off of a lognormal spread, None without.
    stuck : where devices are stuck: 'off', 'on', 'uniform' (between both), 'base' (as in `base`), '' without.
    stuck_probability : of being stuck; for 'base' that of the bundled model.
    variance : s2, the variance of ln(d eps) about its line, None for that of `base`.
    form : of the law, 'anchored' or 'paper', see `calib.nonidealities.iv.IV`; '' for that of `base`.
    assumed : whether the numbers behind it were never published.
    """

    name: str
    title: str
    base: str = "siox-high-resistance"
    law: bool = False
    sigma: tuple[float, float] | None = None
    stuck: str = ""
    stuck_probability: float = 0.05
    variance: float | None = None
    form: str = ""
    assumed: bool = False


@dataclass(frozen=True)
class Training:
    """One way to train networks.

    Attributes
    ----------
    name, title : for folders; for tables.
    setup : name of the set-up whose devices are drawn in training.
    mapping, l1, ideal : see `calib.training.train`.
    validation : 'memristive' (median over repeated draws) or 'standard' (once after every epoch).
    recipe : 'main', 'other' or 'long', of the settings.
    images : 'mnist', or 'cifar-10' with its convolutional network.
    """

    name: str
    title: str
    setup: str
    mapping: str = "double"
    l1: float = 0.0
    ideal: bool = False
    validation: str = "memristive"
    recipe: str = "main"
    images: str = "mnist"


@dataclass(frozen=True)
class Experiment:
    """Trainings and what each is tested on, as cells (training, set-up)."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = field(default=())


_HIGH, _LOW, _TA = "siox-high-resistance", "siox-low-resistance", "ta-hfo2"
_LOGNORMAL = {"lognormal-even": (0.25, 0.25), "lognormal-uneven": (0.05, 0.5), "lognormal-large": (0.5, 0.5)}

_SETUPS = (
    Setup("ideal", "ideal"),
    Setup("siox-low", "SiOx, low resistance", base=_LOW, law=True),
    Setup("siox-high", "SiOx, high resistance", law=True),
    Setup("stuck-off", "5 % stuck at G_off", stuck="off"),
    Setup("siox-high-stuck-on", "SiOx high, 5 % stuck at G_on", law=True, stuck="on"),
    *(Setup(name, f"lognormal {on:g}, {off:g}", sigma=(on, off)) for name, (on, off) in _LOGNORMAL.items()),
    Setup("ta-hfo2", "Ta/HfO2 stuck (assumed values)", base=_TA, stuck="base", assumed=True),
    Setup("siox-high-s2-0.28", "SiOx high, s2 = 0.28", law=True, variance=0.28, assumed=True),
    Setup("siox-high-s2-0.374", "SiOx high, s2 = 0.374", law=True, variance=0.374, assumed=True),
    Setup("siox-high-paper-form", "SiOx high, paper's form", law=True, form="paper"),
    Setup("ta-hfo2-off", "Ta/HfO2, stuck at G_off", base=_TA, stuck="off", stuck_probability=0.101, assumed=True),
    Setup("ta-hfo2-uniform", "Ta/HfO2, stuck anywhere", base=_TA, stuck="uniform", stuck_probability=0.101,
          assumed=True),
    Setup("ta-hfo2-on", "Ta/HfO2, stuck at G_on", base=_TA, stuck="on", stuck_probability=0.101, assumed=True),
)  # fmt: skip
SETUPS = {setup.name: setup for setup in _SETUPS}
MATRIX_SETUPS = tuple(setup.name for setup in _SETUPS[:9])
COVARIANCE_SETUPS = ("siox-high-s2-0.28", "siox-high", "siox-high-s2-0.374")
PAPER_FORM = "siox-high-paper-form"
TA_SETUPS = ("ta-hfo2", "ta-hfo2-off", "ta-hfo2-uniform", "ta-hfo2-on")


def _standard(name: str, title: str, recipe: str = "main", images: str = "mnist") -> Training:
    return Training(name, title, "siox-high", "lowest", ideal=True, validation="standard", recipe=recipe, images=images)


def _aware(name: str, setup: str, title: str) -> list[Training]:
    return [
        Training(name, f"{title}, aware", setup),
        Training(f"{name}-l1", f"{title}, aware + L1", setup, l1=L1),
    ]


_TRAININGS = (
    _standard(STANDARD, "standard"),
    _standard("standard-other", "standard, other recipe", recipe="other"),
    _standard("standard-long", "standard, long recipe", recipe="long"),
    *_aware("low", "siox-low", "SiOx low"),
    *_aware("high", "siox-high", "SiOx high"),
    *_aware("off", "stuck-off", "stuck at G_off"),
    *_aware("on", "siox-high-stuck-on", "SiOx high + stuck at G_on"),
    *_aware("even", "lognormal-even", "lognormal 0.25, 0.25"),
    *_aware("uneven", "lognormal-uneven", "lognormal 0.05, 0.5"),
    Training("large", "lognormal 0.5, 0.5, aware", "lognormal-large"),
    *(
        Training(f"{name}-{mapping}", f"{SETUPS[f'lognormal-{name}'].title}, {mapping} mapping", f"lognormal-{name}",
                 mapping=mapping)
        for name in ("even", "uneven", "large")
        for mapping in ("lowest", "average")
    ),
    Training("large-standard-validation", "lognormal 0.5, 0.5, standard validation", "lognormal-large",
             validation="standard"),
    *_aware("ta", "ta-hfo2", "Ta/HfO2"),
    _standard("cifar-standard", "CIFAR-10, standard", images="cifar-10"),
    Training("cifar-high", "CIFAR-10, SiOx high, aware", "siox-high", images="cifar-10"),
    Training("cifar-high-l1", "CIFAR-10, SiOx high, aware + L1", "siox-high", l1=L1, images="cifar-10"),
)  # fmt: skip
TRAININGS = {training.name: training for training in _TRAININGS}
MATRIX_TRAININGS = (
    STANDARD, "low", "low-l1", "high", "high-l1", "off", "off-l1", "on", "on-l1", "even", "even-l1", "uneven",
    "uneven-l1", "large", "ta", "ta-l1",
)  # fmt: skip


def _own(setup: str, *trainings: str) -> tuple[Cell, ...]:
    return tuple((training, setup) for training in trainings)


_EXPERIMENTS = (
    Experiment(
        "siox",
        "I-V nonlinearity of SiOx",
        (
            (STANDARD, "ideal"), *_own("siox-low", STANDARD, "low", "low-l1"),
            *_own("siox-high", STANDARD, "high", "high-l1"),
            *((STANDARD, setup) for setup in COVARIANCE_SETUPS if setup != "siox-high"),
        ),
        ("s2, the variance of ln(d eps) about its line, was never published: 0.28 to 0.374 is its band",),
    ),
    Experiment("stuck-off", "Devices stuck at G_off", _own("stuck-off", STANDARD, "off", "off-l1")),
    Experiment(
        "stuck-on", "I-V nonlinearity and devices stuck at G_on", _own("siox-high-stuck-on", STANDARD, "on", "on-l1"),
        ("stuck devices follow the I-V law at R = 1/G_on",),
    ),
    Experiment(
        "lognormal",
        "Lognormal spread of R, and how weights become conductances",
        (
            *_own("lognormal-even", STANDARD, "even-lowest", "even-average", "even", "even-l1"),
            *_own("lognormal-uneven", STANDARD, "uneven-lowest", "uneven-average", "uneven", "uneven-l1"),
            *_own("lognormal-large", STANDARD, "large-lowest", "large-average", "large"),
        ),
    ),
    Experiment(
        "validation", "Memristive against standard validation",
        _own("lognormal-large", "large", "large-standard-validation"),
        (
            "memristive: the median error over repeated draws decides which checkpoint is kept; standard: the error "
            "with one draw after every epoch",
        ),
    ),
    Experiment(
        "ta-hfo2",
        "Stuck devices of Ta/HfO2, with the sensitivity to their assumed conductances",
        tuple((training, setup) for setup in TA_SETUPS for training in (STANDARD, "ta", "ta-l1")),
        (
            "the stuck conductances were never published: the set-up is lognormal about G_off with the standard "
            "deviation that Scott's rule gives, the other rows replace it; none counts as reproduced",
        ),
    ),
    Experiment(
        "covariance",
        "What the unpublished covariance of SiOx and the training recipe leave open",
        tuple(
            (training, setup)
            for training in (STANDARD, "standard-other", "standard-long", "high", "high-l1")
            for setup in (*COVARIANCE_SETUPS, PAPER_FORM)
        ),
        (
            "s2 is the variance of ln(d eps) about its line; networks are those trained at 0.31 in the anchored form",
            "in the paper's form ln c is drawn with ln(d eps) about a line of its own, so that a device's current at "
            "0.1 V is that of its R only on average",
        ),
    ),
    Experiment(
        "cifar-10",
        "CIFAR-10: digital convolutions, then 1024-25-10 on SiOx of high resistance",
        (("cifar-standard", "ideal"), *_own("siox-high", "cifar-standard", "cifar-high", "cifar-high-l1")),
        ("training images are shifted by up to 10 % in both directions and flipped left to right, at random",),
    ),
    Experiment(
        "matrix",
        "Trained on one, tested on all",
        tuple((training, setup) for training in MATRIX_TRAININGS for setup in MATRIX_SETUPS),
    ),
)  # fmt: skip
EXPERIMENTS = {experiment.name: experiment for experiment in _EXPERIMENTS}


def chosen(only: Sequence[str] | None) -> list[Experiment]:
    """Return the experiments of some names, all without names.

    Raises
    ------
    OptionError
        When there is no such experiment.
    """
    unknown = [name for name in only or () if name not in EXPERIMENTS]
    if unknown:
        raise OptionError(
            f"there is no experiment '{', '.join(unknown)}'; expected some of {', '.join(EXPERIMENTS)}, separated by "
            "commas"
        )
    return [experiment for experiment in _EXPERIMENTS if not only or experiment.name in only]


def cells_of(experiments: Iterable[Experiment]) -> list[Cell]:
    """Return each cell of some experiments once, ordered by training."""
    found = {cell for experiment in experiments for cell in experiment.cells}
    trainings, setups = list(TRAININGS), list(SETUPS)
    return sorted(found, key=lambda cell: (trainings.index(cell[0]), setups.index(cell[1])))
