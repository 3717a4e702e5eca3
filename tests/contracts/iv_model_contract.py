"""What every conduction law must hold to; a test class inherits this and names its laws.

Parameters are drawn from the law's own description (`typical` and transform), so that a new law is tested without
writing anything more. Where a law cannot hold to a test, an attribute of the law says so and why.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from calib.iv_models import IVModel
from calib.iv_models.base import Parameter

V_MAX = 1.0
V_REF = 0.1
N = 20  # devices
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "sqrt": np.sqrt, "abs": np.abs, "log": np.log, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "atan": np.arctan, "min": np.minimum, "max": np.maximum, "pow": np.power,
}  # fmt: skip
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip


def evaluate(expression: str, **values: Any) -> Any:
    """Evaluate a law's text: numbers, names, + - * / ** and the functions that SPICE and Verilog-A share."""

    def visit(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return visit(body)
            case ast.Constant(value=int() | float() as value):
                return value
            case ast.Name(id=name):
                return values[name]
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](visit(left), visit(right))
            case ast.UnaryOp(op=op, operand=operand):
                return _OPERATORS[type(op)](visit(operand))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return _FUNCTIONS[name](*map(visit, args))
        raise ValueError(f"'{ast.unparse(node)}' in '{expression}' is not in the language of cards")

    return visit(ast.parse(expression, mode="eval"))


def draw(parameter: Parameter, n: int, generator: np.random.Generator) -> np.ndarray:
    """Draw values of a parameter in the range where devices are found: over decades where it is positive."""
    low, high = parameter.typical
    if parameter.transform == "log":
        return np.exp(generator.uniform(np.log(low), np.log(high), n))
    return generator.uniform(low, high, n)


def device_parameters(law: IVModel, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return parameters of `n` devices, (device, 1); a series resistance takes 10 to 50 % of V_MAX."""
    generator = np.random.default_rng(seed)
    values = {p.name: draw(p, n, generator)[:, None] for p in law.parameters}
    if law.series:
        inner = {name: value for name, value in values.items() if name != law.series}
        current = law.law.current(np.full((n, 1), V_MAX), xp=np, **inner)  # type: ignore[attr-defined]
        values[law.series] = V_MAX / current * generator.uniform(0.1, 1.0, (n, 1))
    return values


def anchored_shape(law: IVModel, values: dict[str, np.ndarray], resistance: np.ndarray) -> dict[str, np.ndarray]:
    """Return the shape parameters of devices of a resistance; a series resistance is half of it."""
    return {name: 0.5 * resistance if name == law.series else values[name] for name in law.shape}


class IVModelContract:
    """The tests; a subclass parametrises `law`."""

    @pytest.fixture
    def values(self, law: IVModel) -> dict[str, np.ndarray]:
        return device_parameters(law, N)

    @pytest.fixture
    def voltage(self) -> np.ndarray:
        return np.linspace(-V_MAX, V_MAX, 21)

    def test_is_described(self, law: IVModel) -> None:
        assert law.parameter_names[0] == law.scale
        assert law.parameter(law.scale).transform == "log"
        assert {law.scale, *law.shape} == set(law.parameter_names)
        assert all(isinstance(text, str) and text for text in (law.title, law.latex, law.source, law.expression))
        for parameter in law.parameters:
            assert parameter.name.isidentifier()
            assert parameter.name != "V"
            assert parameter.unit
            assert len(parameter.meaning) > 5
            assert parameter.lower <= parameter.typical[0] < parameter.typical[1] <= parameter.upper
            assert parameter.transform in ("log", "identity")
            if parameter.transform == "log":
                assert parameter.lower >= 0
                assert parameter.typical[0] > 0
        assert law.series_allowed or law.series or len(law.no_series_because) > 20
        assert not law.series or law.series in law.shape

    def test_torch_equals_numpy(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        tensors = {name: torch.as_tensor(value) for name, value in values.items()}
        expected = law.current(voltage, xp=np, **values)
        found = law.current(torch.as_tensor(voltage), xp=torch, **tensors)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=0)
        jacobian = law.jacobian(torch.as_tensor(voltage), xp=torch, **tensors)
        for name, column in law.jacobian(voltage, xp=np, **values).items():
            np.testing.assert_allclose(
                jacobian[name].numpy(), column, rtol=1e-10, atol=rounding(expected, values[name])
            )

    def test_keeps_single_precision(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        tensors = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()}
        voltage = np.array([-0.8, -0.1, 0.0, 1e-6, 0.2, 1.0])
        found = law.current(torch.as_tensor(voltage, dtype=torch.float32), xp=torch, **tensors)
        assert found.dtype == torch.float32
        expected = law.current(voltage, xp=np, **values)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-30)

    def test_broadcasts(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        together = law.current(voltage[:, None, None], xp=np, **values)
        assert together.shape == (len(voltage), N, 1)
        alone = [
            law.current(np.float64(v), xp=np, **{name: value[3, 0] for name, value in values.items()}) for v in voltage
        ]
        np.testing.assert_allclose(together[:, 3, 0], alone, rtol=1e-13)

    def test_no_current_without_voltage(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        np.testing.assert_array_equal(law.current(np.zeros(3), xp=np, **values), 0.0)

    def test_current_has_the_sign_of_the_voltage(
        self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray
    ) -> None:
        current = law.current(voltage, xp=np, **values)
        np.testing.assert_array_equal(np.sign(current), np.broadcast_to(np.sign(voltage), current.shape))

    def test_current_grows_with_the_voltage(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        current = law.current(np.linspace(-V_MAX, V_MAX, 401), xp=np, **values)
        assert np.isfinite(current).all()
        assert (np.diff(current) >= 0).all()
        assert (np.diff(current[:, 300:]) > 0).all()

    def test_is_odd_as_declared(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        forward, backward = law.current(voltage, xp=np, **values), law.current(-voltage, xp=np, **values)
        assert np.allclose(backward, -forward, rtol=1e-12, atol=0) == law.odd

    def test_scale_is_a_factor_as_declared(
        self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray
    ) -> None:
        current = law.current(voltage, xp=np, **values)
        twice = law.current(voltage, xp=np, **{**values, law.scale: 2 * values[law.scale]})
        assert np.allclose(twice, 2 * current, rtol=1e-14, atol=0) == law.scale_is_factor
        if law.scale_is_factor:
            by_scale = law.jacobian(voltage, xp=np, **values)[law.scale]
            np.testing.assert_allclose(by_scale * values[law.scale], current, rtol=1e-13)

    def test_jacobian(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        """Against the complex step, which has no truncation error above (1e-20)^2: equal to rounding of the current."""
        jacobian = law.jacobian(voltage, xp=np, **values)
        current = law.current(voltage, xp=np, **values)
        assert set(jacobian) == set(law.parameter_names)
        for name in law.parameter_names:
            step = 1e-20 * np.abs(values[name])
            moved = {**values, name: values[name] + 1j * step}
            expected = law.current(voltage, xp=np, **moved).imag / step
            found = np.broadcast_to(jacobian[name], expected.shape)
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=rounding(current, values[name]))

    def test_jacobian_against_differences(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        """Of fourth order, as an implicit law's complex step rests on the same equation as its jacobian."""
        voltage = np.array([-0.9, -0.3, 0.12, 0.5, 1.0])
        jacobian = law.jacobian(voltage, xp=np, **values)
        current = law.current(voltage, xp=np, **values)
        for name in law.parameter_names:
            step = 1e-3 * np.abs(values[name])

            def at(k: int, name: str = name, step: np.ndarray = step) -> np.ndarray:
                return law.current(voltage, xp=np, **{**values, name: values[name] + k * step})

            expected = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
            found = np.broadcast_to(jacobian[name], expected.shape)
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=rounding(current, values[name]) * 1e4)

    def test_slope(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        """dI/dV against differences of fourth order; finite at 0 V."""
        if not (law.series_allowed or law.series):
            return
        voltage = np.array([-1.0, -0.4, -0.05, 0.03, 0.2, 0.7, 1.0])
        h = 1e-4 * np.abs(voltage)

        def at(k: int) -> np.ndarray:
            return law.current(voltage + k * h, xp=np, **values)

        expected = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)
        np.testing.assert_allclose(law.slope(voltage, xp=np, **values), expected, rtol=2e-5, atol=1e-60)
        assert np.isfinite(law.slope(np.zeros(1), xp=np, **values)).all()

    def test_gradcheck(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        """In units in which voltage, current and parameters are of order one, for the check's absolute tolerance."""
        names = law.parameter_names
        voltage = torch.tensor([-0.4, -0.1, 0.06, 0.5], dtype=torch.float64).requires_grad_()
        unit = {n: torch.as_tensor(np.where(values[n] == 0, 1.0, values[n])[:4]) for n in names}
        size = law.current(torch.tensor(0.5), xp=torch, **{n: torch.as_tensor(values[n][:4]) for n in names})
        tensors = [(torch.as_tensor(values[n][:4]) / unit[n]).requires_grad_() for n in names]

        def current(v: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
            return law.current(v, xp=torch, **{n: p * unit[n] for n, p in zip(names, parameters, strict=True)}) / size

        assert torch.autograd.gradcheck(current, (voltage, *tensors))

    def test_gradient_of_the_parameters_at_zero_voltage(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        tensors = {n: torch.as_tensor(v).requires_grad_() for n, v in values.items()}
        law.current(torch.zeros(3, dtype=torch.float64), xp=torch, **tensors).sum().backward()
        for tensor in tensors.values():
            assert tensor.grad is not None
            assert torch.equal(tensor.grad, torch.zeros_like(tensor))

    def test_anchor(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        resistance = np.logspace(2, 9, N)[:, None]
        shape = anchored_shape(law, values, resistance)
        scale = law.anchor(resistance, V_REF, xp=np, **shape)
        current = law.current(np.float64(V_REF), xp=np, **{law.scale: scale, **shape})
        np.testing.assert_allclose(current, V_REF / resistance, rtol=1e-12)
        np.testing.assert_allclose(law.resistance(V_REF, xp=np, **{law.scale: scale, **shape}), resistance, rtol=1e-12)

    def test_anchor_in_torch(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        resistance = np.logspace(2, 9, N)[:, None]
        shape = anchored_shape(law, values, resistance)
        expected = np.broadcast_to(law.anchor(resistance, V_REF, xp=np, **shape), (N, 1))
        tensors = {name: torch.as_tensor(value) for name, value in shape.items()}
        found = law.anchor(torch.as_tensor(resistance), V_REF, xp=torch, **tensors)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)

    def test_shapes_of_a_resistance_are_admissible(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        """Whatever was drawn, the anchor exists, and what is admissible already stays as it is."""
        v_ref = V_MAX / 2  # not V_REF: 5 % of it may be left over the law
        resistance = np.logspace(0, 9, N)[:, None]
        shape = law.admissible(resistance, xp=np, **{name: values[name] for name in law.shape})
        assert np.isfinite(law.anchor(resistance, v_ref, xp=np, **shape)).all()
        again = law.admissible(resistance, xp=np, **shape)
        assert all(np.array_equal(again[name], shape[name]) for name in law.shape)

    def test_coordinate_round_trip(self, law: IVModel) -> None:
        voltage = np.linspace(0, 2, 101)
        coordinate = law.coordinate(voltage, xp=np)
        assert coordinate[0] == 0
        assert (np.diff(coordinate) > 0).all()
        np.testing.assert_allclose(law.coordinate_inverse(coordinate, xp=np), voltage, rtol=1e-13, atol=1e-16)

    def test_is_smooth_in_its_coordinate(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        """The ratio to a neighbour's current, on 16 Chebyshev nodes, gives currents to 1e-4 of the largest.

        The neighbour is a device whose shape is a tenth nearer to the middle of all. The nodes begin where it suits
        the law, as in `calib.crossbar.multiply`: a steep law carries little current at small voltage.
        """
        other = {name: 0.9 * value + 0.1 * np.median(value) for name, value in values.items()}
        where = np.linspace(0.02, V_MAX, 50)
        share = law.current(where, xp=np, **values) / law.current(np.float64(V_MAX), xp=np, **values)

        def ratio(voltage: np.ndarray) -> np.ndarray:
            return law.current(voltage, xp=np, **values) / law.current(voltage, xp=np, **other)

        errors = []
        for low_voltage in (0.02, 0.15, 0.3):
            low, high = (float(law.coordinate(np.float64(v), xp=np)) for v in (low_voltage, V_MAX))
            nodes = low + (high - low) / 2 * (1 - np.cos((np.arange(16) + 0.5) * np.pi / 16))
            at_nodes = ratio(law.coordinate_inverse(nodes, xp=np))
            polynomials = [np.polynomial.Chebyshev.fit(nodes, row, 15) for row in at_nodes]
            found = np.array([polynomial(law.coordinate(where, xp=np)) for polynomial in polynomials])
            errors.append(np.abs((found / ratio(where) - 1) * share).max())
        assert min(errors) < 1e-4

    def test_guess(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        """A clean curve with points missing gives starting values that follow it where current flows.

        And within a factor of two, or a quarter of the typical range, of the parameters that the curve tells apart.
        """
        voltage = np.tile(np.linspace(0.0 if law.odd else -V_MAX, V_MAX, 31), (N, 1))
        voltage[:5, 25:] = np.nan
        current = law.current(voltage, xp=np, **values)
        guess = law.guess(voltage, current)
        assert all(found.shape == (N,) for found in guess.values())
        follows = law.current(voltage, xp=np, **{name: value[:, None] for name, value in guess.items()})
        clear = np.abs(current) > 1e-2 * np.nanmax(np.abs(current), axis=1, keepdims=True)
        assert np.abs(np.log(follows[clear] / current[clear])).max() < 0.3
        if law.correlated:
            return
        for parameter in law.parameters:
            found, true = guess[parameter.name], values[parameter.name][:, 0]
            if parameter.transform == "log":
                assert np.abs(np.log(found / true)).max() < np.log(2)
            else:
                assert np.abs(found - true).max() < 0.25 * np.ptp(parameter.typical)

    def test_guess_is_good_enough_for_noisy_curves(self, law: IVModel) -> None:
        """Gauss-Newton from the guess must not start far away: 5 % noise, some points and one curve of few points."""
        values, generator = device_parameters(law, 200, seed=1), np.random.default_rng(2)
        voltage = np.tile(np.linspace(0.02 if law.odd else -V_MAX, V_MAX, 50), (200, 1))
        exact = law.current(voltage, xp=np, **values)
        current = exact * (1 + 0.05 * generator.standard_normal(exact.shape))
        current[generator.random(current.shape) < 0.1] = np.nan
        guess = law.guess(voltage, current)
        follows = law.current(voltage, xp=np, **{name: value[:, None] for name, value in guess.items()})
        clear = np.abs(exact) > 1e-2 * np.abs(exact).max(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            off = np.where(clear, np.abs(np.log(follows / exact)), np.nan)
        assert np.nanmedian(off, axis=1).max() < 0.3

    def test_guess_of_unusable_curves_is_finite(self, law: IVModel) -> None:
        voltage = np.tile(np.linspace(0.0, V_MAX, 6), (5, 1))
        current = np.stack([np.zeros(6), -voltage[1], np.where(voltage[2] > 0.3, 1e-6, -1e-9), np.full(6, np.nan),
                            np.where(voltage[4] > 0.9, 1e-6, np.nan)])  # fmt: skip
        guess = law.guess(voltage, current)
        for parameter in law.parameters:
            found = guess[parameter.name]
            assert np.isfinite(found).all()
            assert (found >= parameter.lower).all()
            assert (found <= parameter.upper).all()
            if parameter.transform == "log":
                assert (found > 0).all()

    def test_text_is_the_law(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        """With a series resistance, the text's current and the drop over the resistance add up to the voltage."""
        current = law.current(voltage, xp=np, **values)
        if law.series:
            inner = voltage - current * values[law.series]
            found = evaluate(law.expression, V=inner, **values)
            np.testing.assert_allclose(inner + found * values[law.series], np.broadcast_to(voltage, current.shape),
                                       rtol=1e-9, atol=1e-12)  # fmt: skip
        else:
            found = evaluate(law.expression, V=voltage, **values)
            np.testing.assert_allclose(found, current, rtol=1e-13, atol=0)
        assert (evaluate(law.expression, V=np.zeros(1), **values) == 0).all()

    def test_derived_quantities_are_described(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        one = {name: float(np.abs(value[0, 0])) for name, value in values.items()}
        for name, (value, unit, meaning) in law.derived(293.15, **one).items():
            assert name.isidentifier()
            assert np.isfinite(value)
            assert unit
            assert meaning
        assert all(np.isfinite(v) for v, _, _ in law.derived(None, **one).values())


def rounding(current: np.ndarray, value: np.ndarray) -> np.ndarray | float:
    """Return the error of a derivative that comes of rounding the current: 1e-12 I / theta, largest over the points."""
    size = np.abs(current).max(-1, keepdims=True) / np.where(value == 0, 1.0, np.abs(value))
    return 1e-12 * float(size.max())
