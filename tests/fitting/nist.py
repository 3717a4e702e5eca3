"""NIST's nonlinear-regression problems: the files, their models, and the models as problems of the solver."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calib.fitting.levenberg_marquardt import Problem, Rows

FOLDER = Path(__file__).parent.parent / "golden" / "nist"
HIGHER = "Higher"


def _peaks(b: Sequence, x: np.ndarray) -> np.ndarray:
    first, second = np.exp(-(((x - b[3]) / b[4]) ** 2)), np.exp(-(((x - b[6]) / b[7]) ** 2))
    return b[0] * np.exp(-b[1] * x) + b[2] * first + b[5] * second


def _cubic_ratio(b: Sequence, x: np.ndarray) -> np.ndarray:
    return (b[0] + x * (b[1] + x * (b[2] + x * b[3]))) / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def _three_exponentials(b: Sequence, x: np.ndarray) -> np.ndarray:
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-b[3] * x) + b[4] * np.exp(-b[5] * x)


def _enso(b: Sequence, x: np.ndarray) -> np.ndarray:
    t = 2 * np.pi * x
    total = b[0] + b[1] * np.cos(t / 12) + b[2] * np.sin(t / 12)
    total = total + b[4] * np.cos(t / b[3]) + b[5] * np.sin(t / b[3])
    return total + b[7] * np.cos(t / b[6]) + b[8] * np.sin(t / b[6])


def _decay_of_ratio(b: Sequence, x: np.ndarray) -> np.ndarray:
    return np.exp(-b[0] * x) / (b[1] + b[2] * x)


MODELS: dict[str, Callable[[Sequence, np.ndarray], np.ndarray]] = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": lambda b, x: b[0] * (1 - np.exp(-b[1] * x)),
    "Chwirut1": _decay_of_ratio,
    "Chwirut2": _decay_of_ratio,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": _enso,
    "Eckerle4": lambda b, x: b[0] / b[1] * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": _peaks,
    "Gauss2": _peaks,
    "Gauss3": _peaks,
    "Hahn1": _cubic_ratio,
    "Kirby2": lambda b, x: (b[0] + x * (b[1] + x * b[2])) / (1 + x * (b[3] + x * b[4])),
    "Lanczos1": _three_exponentials,
    "Lanczos2": _three_exponentials,
    "Lanczos3": _three_exponentials,
    "MGH09": lambda b, x: b[0] * (x * x + x * b[1]) / (x * x + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * np.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4]),
    "Misra1a": lambda b, x: b[0] * (1 - np.exp(-b[1] * x)),
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[..., 0] * np.exp(-b[2] * x[..., 1]),
    "Rat42": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi,
    "Thurber": _cubic_ratio,
}


@dataclass(frozen=True)
class Certified:
    """One file: data, starts (start, parameter), certified values and standard deviations, residual sum of squares."""

    name: str
    level: str
    x: np.ndarray
    y: np.ndarray
    starts: np.ndarray
    values: np.ndarray
    deviations: np.ndarray
    residual_square: float


def read(name: str) -> Certified:
    text = (FOLDER / f"{name}.dat").read_text(encoding="ascii")
    lines = text.splitlines()
    rows = np.array([line.split("=")[1].split() for line in lines if re.match(r"\s+b\d\s*=", line)], dtype=float)
    level = re.search(r"(\w+) Level of Difficulty", text)
    square = re.search(r"Residual Sum of Squares:\s+(\S+)", text)
    assert level is not None
    assert square is not None
    begin = 1 + max(k for k, line in enumerate(lines) if line.startswith("Data:"))
    data = np.array([line.split() for line in lines[begin:] if line.strip()], dtype=float)
    y = np.log(data[:, 0]) if name == "Nelson" else data[:, 0]
    x = data[:, 1:] if data.shape[1] > 2 else data[:, 1]
    return Certified(name, level[1], x, y, rows[:, :2].T, rows[:, 2], rows[:, 3], float(square[1]))


class NistProblem(Problem):
    """The same problem from several starts; derivatives by the complex step, exact to rounding."""

    def __init__(self, certified: Certified, count: int) -> None:
        self.certified, self.model = certified, MODELS[certified.name]
        self.width = len(certified.y)
        self.n_points = np.full(count, self.width)
        self.data_square = np.full(count, np.square(certified.y).sum())

    def evaluate(self, u: np.ndarray, rows: Rows) -> tuple[np.ndarray, Sequence[np.ndarray], None]:
        b = [value[:, None] for value in u]
        residual = self.model(b, self.certified.x) - self.certified.y
        columns = []
        for j, value in enumerate(b):
            h = 1e-30 * np.where(value == 0, 1.0, np.abs(value))
            moved = [*b[:j], value + 1j * h, *b[j + 1 :]]
            columns.append(self.model(moved, self.certified.x).imag / h)
        return residual, columns, None


def digits(found: np.ndarray, certified: np.ndarray) -> np.ndarray:
    """Return the log relative error: how many digits agree, 11 at most, as many as are certified."""
    with np.errstate(divide="ignore"):
        return np.minimum(-np.log10(np.abs(found - certified) / np.abs(certified)), 11.0)
