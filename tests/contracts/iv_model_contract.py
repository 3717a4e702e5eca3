"""What every conduction law must hold to; a test class inherits this and names its laws.

Parameters are drawn from the law's own description (bounds and transform), so that a new law is tested without writing
anything more.
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

V_MAX = 0.5
V_REF = 0.1
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
    """Draw values of a parameter within its bounds: over decades where it is positive, else of order one."""
    if parameter.transform == "log":
        low, high = max(parameter.lower, 1e-8), min(parameter.upper, 1e-3)
        return np.exp(generator.uniform(np.log(low), np.log(high), n))
    return generator.uniform(max(parameter.lower, -0.5), min(parameter.upper, 3.0), n)


class IVModelContract:
    """The tests; a subclass parametrises `law`."""

    @pytest.fixture
    def values(self, law: IVModel) -> dict[str, np.ndarray]:
        """Parameters of 20 devices, (device, 1)."""
        generator = np.random.default_rng(0)
        return {p.name: draw(p, 20, generator)[:, None] for p in law.parameters}

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
            assert parameter.lower < parameter.upper
            assert parameter.transform in ("log", "identity")
            if parameter.transform == "log":
                assert parameter.lower >= 0

    def test_torch_equals_numpy(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        tensors = {name: torch.as_tensor(value) for name, value in values.items()}
        expected = law.current(voltage, xp=np, **values)
        found = law.current(torch.as_tensor(voltage), xp=torch, **tensors)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=0)
        jacobian = law.jacobian(torch.as_tensor(voltage), xp=torch, **tensors)
        for name, column in law.jacobian(voltage, xp=np, **values).items():
            np.testing.assert_allclose(jacobian[name].numpy(), column, rtol=1e-12, atol=0)

    def test_keeps_single_precision(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        tensors = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()}
        assert law.current(torch.tensor([0.1, 0.2]), xp=torch, **tensors).dtype == torch.float32

    def test_broadcasts(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        together = law.current(voltage[:, None, None], xp=np, **values)
        assert together.shape == (len(voltage), 20, 1)
        alone = [
            law.current(np.float64(v), xp=np, **{name: value[3, 0] for name, value in values.items()}) for v in voltage
        ]
        np.testing.assert_allclose(together[:, 3, 0], alone, rtol=1e-14)

    def test_no_current_without_voltage(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        np.testing.assert_array_equal(law.current(np.zeros(3), xp=np, **values), 0.0)

    def test_current_has_the_sign_of_the_voltage(
        self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray
    ) -> None:
        current = law.current(voltage, xp=np, **values)
        np.testing.assert_array_equal(np.sign(current), np.broadcast_to(np.sign(voltage), current.shape))

    def test_is_odd_as_declared(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        forward, backward = law.current(voltage, xp=np, **values), law.current(-voltage, xp=np, **values)
        assert np.allclose(backward, -forward, rtol=1e-14, atol=0) == law.odd

    def test_scale_is_a_factor(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        twice = {**values, law.scale: 2 * values[law.scale]}
        np.testing.assert_allclose(
            law.current(voltage, xp=np, **twice), 2 * law.current(voltage, xp=np, **values), rtol=1e-14
        )

    def test_jacobian(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        """Against the complex step, which has no truncation error above (1e-20)^2: equal to rounding."""
        jacobian = law.jacobian(voltage, xp=np, **values)
        assert set(jacobian) == set(law.parameter_names)
        for name in law.parameter_names:
            step = 1e-20 * np.abs(values[name])
            moved = {**values, name: values[name] + 1j * step}
            expected = law.current(voltage, xp=np, **moved).imag / step
            np.testing.assert_allclose(np.broadcast_to(jacobian[name], expected.shape), expected, rtol=1e-12, atol=0)

    def test_gradcheck(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        names = law.parameter_names
        scale = values[law.scale][:4]  # currents of order one, for the check's absolute tolerance
        tensors = [torch.as_tensor(values[n][:4] / (scale if n == law.scale else 1.0)).requires_grad_() for n in names]
        voltage = torch.tensor([-0.4, -0.1, 0.05, 0.5], dtype=torch.float64).requires_grad_()

        def current(v: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
            return law.current(v, xp=torch, **dict(zip(names, parameters, strict=True)))

        assert torch.autograd.gradcheck(current, (voltage, *tensors))

    def test_gradient_of_the_parameters_at_zero_voltage(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        tensors = {n: torch.as_tensor(v).requires_grad_() for n, v in values.items()}
        law.current(torch.zeros(3, dtype=torch.float64), xp=torch, **tensors).sum().backward()
        for tensor in tensors.values():
            assert tensor.grad is not None
            assert torch.equal(tensor.grad, torch.zeros_like(tensor))

    def test_anchor(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        resistance = np.logspace(2, 9, 20)[:, None]
        shape = {name: values[name] for name in law.shape}
        scale = law.anchor(resistance, V_REF, xp=np, **shape)
        current = law.current(np.float64(V_REF), xp=np, **{law.scale: scale, **shape})
        np.testing.assert_allclose(current, V_REF / resistance, rtol=1e-12)
        np.testing.assert_allclose(law.resistance(V_REF, xp=np, **{law.scale: scale, **shape}), resistance, rtol=1e-12)

    def test_anchor_in_torch(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        resistance = np.logspace(2, 9, 20)[:, None]
        shape = {name: values[name] for name in law.shape}
        expected = np.broadcast_to(law.anchor(resistance, V_REF, xp=np, **shape), (20, 1))
        tensors = {name: torch.as_tensor(value) for name, value in shape.items()}
        found = law.anchor(torch.as_tensor(resistance), V_REF, xp=torch, **tensors)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)

    def test_coordinate_round_trip(self, law: IVModel) -> None:
        voltage = np.linspace(0, 2, 101)
        coordinate = law.coordinate(voltage, xp=np)
        assert coordinate[0] == 0
        assert (np.diff(coordinate) > 0).all()
        np.testing.assert_allclose(law.coordinate_inverse(coordinate, xp=np), voltage, rtol=1e-14, atol=1e-16)

    def test_is_smooth_in_its_coordinate(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        """A polynomial through 8 Chebyshev nodes follows I / V; 1e-5 is the accuracy stated for exponents under 5."""
        end = float(law.coordinate(np.float64(V_MAX), xp=np))
        nodes = end / 2 * (1 - np.cos((np.arange(8) + 0.5) * np.pi / 8))
        where = np.linspace(0.01, V_MAX, 50)

        def conductance(voltage: np.ndarray) -> np.ndarray:
            return law.current(voltage, xp=np, **values) / voltage

        at_nodes = conductance(law.coordinate_inverse(nodes, xp=np))
        exact = conductance(where)
        polynomial = [
            np.polynomial.Polynomial.fit(nodes, row, 7)(law.coordinate(where, xp=np)) for row in np.atleast_2d(at_nodes)
        ]
        assert np.abs(np.array(polynomial) / exact - 1).max() < 1e-5

    def test_guess(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        """A clean curve with points missing gives starting values within a factor of two, or 0.5 for shapes."""
        voltage = np.tile(np.linspace(0.0, V_MAX, 26), (20, 1))
        voltage[:5, 20:] = np.nan
        current = law.current(voltage, xp=np, **values)
        guess = law.guess(voltage, current)
        for parameter in law.parameters:
            found, true = guess[parameter.name], values[parameter.name][:, 0]
            assert found.shape == (20,)
            if parameter.transform == "log":
                assert np.abs(np.log(found / true)).max() < np.log(2)
            else:
                assert np.abs(found - true).max() < 0.5

    def test_guess_of_unusable_curves_is_finite(self, law: IVModel) -> None:
        voltage = np.tile(np.linspace(0.0, V_MAX, 6), (3, 1))
        current = np.stack([np.zeros(6), -voltage[1], np.where(voltage[2] > 0.3, 1e-6, -1e-9)])
        guess = law.guess(voltage, current)
        for parameter in law.parameters:
            found = guess[parameter.name]
            assert np.isfinite(found).all()
            assert (found >= parameter.lower).all()
            assert (found <= parameter.upper).all()
            if parameter.transform == "log":
                assert (found > 0).all()

    def test_text_is_the_law(self, law: IVModel, values: dict[str, np.ndarray], voltage: np.ndarray) -> None:
        found = evaluate(law.expression, V=voltage, **values)
        np.testing.assert_allclose(found, law.current(voltage, xp=np, **values), rtol=1e-13, atol=0)

    def test_derived_quantities_are_described(self, law: IVModel, values: dict[str, np.ndarray]) -> None:
        one = {name: float(np.abs(value[0, 0])) for name, value in values.items()}
        for name, (value, unit, meaning) in law.derived(293.15, **one).items():
            assert name.isidentifier()
            assert np.isfinite(value)
            assert unit
            assert meaning
        assert all(np.isfinite(v) for v, _, _ in law.derived(None, **one).values())
