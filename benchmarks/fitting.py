"""Fits side by side: ``python benchmarks/fitting.py`` (``make benchmarks`` runs it with the others).

Curves of 100 points with standard errors, every law: calib's batched fit on one thread, which finds its own starting
values, against a loop of scipy's curve_fit over some of the same curves (method lm, the law's own derivatives, starts
within 10 % of the truth, currents scaled to one, default tolerances, 1.5e-8). For Poole-Frenkel also loops of lmfit,
in three ways, and the batched fit on several threads. The alternatives take turns, and medians are printed.
"""

import argparse
import os

for _library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_library, "1")  # before numpy: one thread is one thread

import lmfit  # noqa: E402
import numpy as np  # noqa: E402
from scipy.optimize import curve_fit  # noqa: E402
from turns import Task, take_turns  # noqa: E402

from calib.fitting.least_squares import fit_batch, fit_single  # noqa: E402
from calib.iv_models import IVModel, iv_model, names  # noqa: E402

POINTS = 100
NOISE = 0.01
LOOP = 50  # curves of a loop
V_MAX = 1.0
DETERMINED = 0.5


def draw(law: IVModel, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw parameters from their typical ranges, positive ones evenly in the logarithm."""
    truth = {}
    for p in law.parameters:
        low, high = p.typical
        is_log = p.transform == "log"
        truth[p.name] = (
            np.exp(rng.uniform(np.log(low), np.log(high), count)) if is_log else rng.uniform(low, high, count)
        )
    return truth


def noise(current: np.ndarray) -> np.ndarray:
    """Return standard deviations: relative, and the instrument's."""
    return NOISE * np.abs(current) + 1e-6 * np.abs(current).max(-1, keepdims=True)


def undetermined(law: IVModel, voltage: np.ndarray, truth: dict[str, np.ndarray]) -> np.ndarray:
    """Say which devices' curves would leave a standard error above `DETERMINED`, relative for positive parameters."""
    columns = {name: value[:, None] for name, value in truth.items()}
    weight = 1 / noise(law.current(voltage, xp=np, **columns))
    partial = law.jacobian(voltage, xp=np, **columns)
    sizes = {p.name: columns[p.name] if p.transform == "log" else 1.0 for p in law.parameters}
    stacked = np.stack([partial[name] * sizes[name] * weight for name in law.parameter_names], axis=-1)
    normal = stacked.swapaxes(1, 2) @ stacked
    with np.errstate(all="ignore"):
        variance = np.diagonal(np.linalg.pinv(normal, rcond=1e-14, hermitian=True), axis1=1, axis2=2)
    return ~((variance < DETERMINED**2).all(1) & (np.linalg.cond(normal) < 1e12))


class Curves:
    """Curves of devices drawn from the range that is typical of a law, with 1 % noise, that determine the law.

    A device is drawn again where its points would leave a standard error above `DETERMINED`.
    """

    def __init__(self, law: IVModel, count: int) -> None:
        self.law = law
        rng = np.random.default_rng(0)
        row = np.linspace(V_MAX / POINTS, V_MAX, POINTS)
        if not law.odd:
            row = np.concatenate([-row[1::2][::-1], row[1::2]])
        self.voltage = np.broadcast_to(row, (count, POINTS))
        self.truth = draw(law, count, rng)
        poor = undetermined(law, row, self.truth)
        while poor.any():
            again = draw(law, int(poor.sum()), rng)
            for name, value in self.truth.items():
                value[poor] = again[name]
            poor = undetermined(law, row, self.truth)
        clean = law.current(self.voltage, xp=np, **{name: value[:, None] for name, value in self.truth.items()})
        self.sigma = noise(clean)
        self.current = clean + self.sigma * rng.standard_normal(clean.shape)

    def batch(self, threads: int) -> None:
        """Fit all curves."""
        fit_batch(self.law, self.voltage, self.current, self.sigma, threads=threads)

    def scipy_loop(self) -> None:
        """Fit some curves with curve_fit, currents and the scale in units of the largest current."""
        law, order = self.law, self.law.parameter_names
        for k in range(LOOP):
            unit = float(np.abs(self.current[k]).max()) if law.scale_is_factor else 1.0
            factors = np.array([unit if name == law.scale else 1.0 for name in order])
            start = [1.1 * self.truth[name][k] / f for name, f in zip(order, factors, strict=True)]

            def model(v: np.ndarray, *theta: float, unit: float = unit, factors: np.ndarray = factors) -> np.ndarray:
                return law.current(v, xp=np, **dict(zip(order, theta * factors, strict=True))) / unit

            def jacobian(v: np.ndarray, *theta: float, unit: float = unit, factors: np.ndarray = factors) -> np.ndarray:
                partial = law.jacobian(v, xp=np, **dict(zip(order, theta * factors, strict=True)))
                return np.stack([partial[name] * (f / unit) for name, f in zip(order, factors, strict=True)], axis=1)

            try:
                curve_fit(
                    model, self.voltage[k], self.current[k] / unit, p0=start, sigma=self.sigma[k] / unit,
                    method="lm", jac=jacobian,
                )  # fmt: skip
            except RuntimeError:  # it did not converge: its time counts all the same
                continue

    def single_loop(self) -> None:
        """Fit some curves with calib's path through lmfit: own start, own derivatives, to the last digit."""
        for k in range(LOOP):
            fit_single(self.law, self.voltage[k], self.current[k], self.sigma[k])

    def lmfit_minimize_loop(self) -> None:
        """Fit some curves with lmfit.minimize as its documentation shows it: bounds, numerical derivatives."""
        for k in range(LOOP):
            unit = float(np.abs(self.current[k]).max())
            lmfit.minimize(
                lambda p, k=k, unit=unit: (
                    (self.law.current(self.voltage[k], xp=np, **p.valuesdict()) - self.current[k] / unit)
                    * (unit / self.sigma[k])
                ),
                self.lmfit_parameters(k, unit),
            )

    def lmfit_model_loop(self) -> None:
        """Fit some curves with lmfit.Model, its interface for curves."""
        arguments = ", ".join(self.law.parameter_names)
        scope: dict[str, object] = {"law": self.law, "np": np}
        pairs = ", ".join(f"{name}={name}" for name in self.law.parameter_names)
        exec(f"def curve(voltage, {arguments}):\n    return law.current(voltage, xp=np, {pairs})", scope)
        model = lmfit.Model(scope["curve"])
        for k in range(LOOP):
            unit = float(np.abs(self.current[k]).max())
            model.fit(
                self.current[k] / unit, self.lmfit_parameters(k, unit), voltage=self.voltage[k],
                weights=unit / self.sigma[k],
            )  # fmt: skip

    def lmfit_parameters(self, k: int, unit: float) -> lmfit.Parameters:
        """Return starts within 10 % of the truth, with the law's bounds."""
        parameters = lmfit.Parameters()
        for p in self.law.parameters:
            factor = unit if p.name == self.law.scale else 1.0
            parameters.add(p.name, 1.1 * self.truth[p.name][k] / factor, min=p.lower / factor, max=p.upper / factor)
        return parameters


def all_laws(count: int, repeats: int) -> None:
    """Print the time a curve and the ratio to curve_fit for every law."""
    print(f"\n{'law':24s} {'parameters':>10s} {'calib, us':>10s} {'curve_fit, us':>14s} {'ratio':>7s}")
    for name in names():
        curves = Curves(iv_model(name), count)
        found = take_turns({"calib": lambda c=curves: c.batch(1), "scipy": curves.scipy_loop}, repeats)
        calib, scipy = found["calib"] / count, found["scipy"] / LOOP
        print(
            f"{name:24s} {len(curves.law.parameters):10d} {1e6 * calib:10.2f} {1e6 * scipy:14.1f} {scipy / calib:7.1f}"
        )


def poole_frenkel(count: int, repeats: int) -> None:
    """Print Poole-Frenkel against every alternative, and on several threads."""
    curves = Curves(iv_model("poole-frenkel"), count)
    most = os.cpu_count() or 1
    tasks: dict[str, Task] = {"calib, batched, 1 thread": lambda: curves.batch(1)}
    for threads in (2, 4, 8):
        if threads <= most:
            tasks[f"calib, batched, {threads} threads"] = lambda threads=threads: curves.batch(threads)
    loops = {
        "scipy.optimize.curve_fit": curves.scipy_loop,
        "calib, fit_single (lmfit)": curves.single_loop,
        "lmfit.minimize, its defaults": curves.lmfit_minimize_loop,
        "lmfit.Model.fit, its defaults": curves.lmfit_model_loop,
    }
    found = take_turns({**tasks, **loops}, repeats)
    one = found["calib, batched, 1 thread"] / count
    print(f"\nPoole-Frenkel, {count} curves of {POINTS} points, with standard errors")
    for name, value in found.items():
        each = value / (LOOP if name in loops else count)
        print(f"  {name:32s} {1e6 * each:9.2f} us a curve   {each / one:7.1f} x")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Fits side by side.")
    parser.add_argument("--curves", type=int, default=20_000, help="curves of a batch (default 20000)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    arguments = parser.parse_args()
    poole_frenkel(arguments.curves, arguments.repeats)
    all_laws(arguments.curves, arguments.repeats)


if __name__ == "__main__":
    main()
