"""NIST's 27 nonlinear-regression problems through the solver of every fit, from the second start."""

import numpy as np
import pytest

from calib.fitting.least_squares import solve
from tests.fitting.nist import FOLDER, HIGHER, MODELS, NistProblem, digits, read

DEVIATION_DIGITS = 6
# Residuals of 1e-13 of data of order one: double precision itself has three digits of their sum of squares.
DEVIATION_DIGITS_OF = {"Lanczos1": 2}


def test_all_problems_are_there() -> None:
    assert len(MODELS) == 27
    assert {path.stem for path in FOLDER.glob("*.dat")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_certified_values_are_found(name: str) -> None:
    """At least 8 digits of every parameter, 6 where NIST says 'higher level of difficulty', and of the deviations."""
    certified = read(name)
    solution = solve(NistProblem(certified, 1), certified.starts[1:], maximum_iterations=2000)
    assert solution.converged[0]
    assert digits(solution.u[0], certified.values).min() >= (6 if certified.level == HIGHER else 8)
    deviations = np.sqrt(np.diagonal(solution.unscaled[0]) * solution.variance[0])
    assert digits(deviations, certified.deviations).min() >= DEVIATION_DIGITS_OF.get(name, DEVIATION_DIGITS)
    if name not in DEVIATION_DIGITS_OF:
        assert digits(solution.square, np.array([certified.residual_square])).min() >= 8


@pytest.mark.parametrize("name", ["Misra1a", "Thurber", "Rat43"])
def test_problems_of_a_batch_do_not_disturb_each_other(name: str) -> None:
    certified = read(name)
    starts = np.stack([certified.starts[1], certified.values])
    together = solve(NistProblem(certified, 2), starts)
    alone = solve(NistProblem(certified, 1), starts[1:])
    np.testing.assert_allclose(together.u[1], alone.u[0], rtol=1e-12)
    np.testing.assert_allclose(together.u[0], together.u[1], rtol=1e-8)


def test_an_exhausted_iteration_is_said() -> None:
    certified = read("MGH10")
    solution = solve(NistProblem(certified, 1), certified.starts[1:], maximum_iterations=5)
    assert not solution.converged[0]


def test_a_start_where_the_model_is_not_finite_is_said() -> None:
    certified = read("Misra1a")
    solution = solve(NistProblem(certified, 1), np.array([[np.inf, 1.0]]))
    assert not solution.converged[0]
    assert np.isnan(solution.unscaled).all()


def test_a_bound_that_cuts_off_the_minimum_holds_the_parameter() -> None:
    """b2 of Misra1a is held at its bound; the other is the linear least-squares value there, with its deviation."""
    certified = read("Misra1a")
    lower = np.array([-np.inf, 6e-4])  # the minimum is at 5.5e-4
    solution = solve(NistProblem(certified, 1), certified.starts[:1], lower=lower)
    assert solution.converged[0]
    assert solution.u[0, 1] == 6e-4
    assert solution.at_bound[0].tolist() == [False, True]
    g = 1 - np.exp(-6e-4 * certified.x)
    assert solution.u[0, 0] == pytest.approx((g @ certified.y) / (g @ g), rel=1e-10)
    assert solution.n_free[0] == len(g) - 1
    np.testing.assert_allclose(solution.unscaled[0], [[1 / (g @ g), 0.0], [0.0, 0.0]], rtol=1e-9)
    assert solution.condition[0] == 1.0
