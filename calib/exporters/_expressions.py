"""The language of cards: formulae as text that is evaluated here, and written for SPICE and for Verilog-A.

A formula has numbers, names, + - * /, parentheses, and the functions of `FUNCTIONS`; `calib.iv_models` states each law
in it, V being the voltage. `log` is the natural logarithm, written as `ln`: in Verilog-A `log` is the decimal one.
"""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

VOLTAGE = "V"
ROOT_FLOOR = 1e-20
"""Added to |V| under a root: sqrt(|V|) has an infinite slope at 0 V, where simulators form 0 times infinity. The root
changes by at most 1e-10 at 0 V and by 5e-21 / sqrt(|V|) elsewhere, all in sqrt(V)."""
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "sqrt": np.sqrt, "abs": np.abs, "log": np.log, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "atan": np.arctan, "min": np.minimum, "max": np.maximum, "pow": np.power,
}  # fmt: skip
_OPERATORS: dict[type, tuple[str, int, Callable[..., Any]]] = {
    ast.Add: (" + ", 1, operator.add), ast.Sub: (" - ", 1, operator.sub),
    ast.Mult: ("*", 2, operator.mul), ast.Div: ("/", 2, operator.truediv),
}  # fmt: skip
_ATOM = 4
_SHORT = 9  # characters of a number that ngspice keeps in full inside a B source, where it cuts others to 11 digits


@dataclass(frozen=True)
class Step:
    """One line of a calculation: `name` = `formula`, of what was named before."""

    name: str
    formula: str


def parse(formula: str) -> ast.expr:
    """Return the tree of a formula."""
    return ast.parse(formula, mode="eval").body


def evaluate(formula: str | ast.expr, values: Mapping[str, Any]) -> Any:
    """Return the value of a formula; arrays broadcast.

    Raises
    ------
    ValueError
        When the formula holds what the language of cards does not have.
    """
    match parse(formula) if isinstance(formula, str) else formula:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)][2](evaluate(left, values), evaluate(right, values))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand, values)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(evaluate(argument, values) for argument in args))
        case other:
            raise ValueError(f"'{ast.unparse(other)}' is not in the language of cards")


def run(steps: Iterable[Step], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values and those of the steps, in their order."""
    found = dict(values)
    for step in steps:
        found[step.name] = evaluate(step.formula, found)
    return found


def names(formula: str | ast.expr) -> set[str]:
    """Return the names of values in a formula, without those of functions."""
    tree = parse(formula) if isinstance(formula, str) else formula
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}


def substitute(formula: str, replacements: Mapping[str, str]) -> str:
    """Return a formula with names replaced by other formulae; a factor of 1 in front is dropped."""

    class Replace(ast.NodeTransformer):
        def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
            left, right = self.visit(node.left), self.visit(node.right)
            if isinstance(node.op, ast.Mult) and isinstance(left, ast.Constant) and left.value == 1:
                return right
            return ast.BinOp(left, node.op, right)

        def visit_Name(self, node: ast.Name) -> ast.expr:
            return parse(replacements[node.id]) if node.id in replacements else node

        def visit_Call(self, node: ast.Call) -> ast.Call:
            return ast.Call(node.func, [self.visit(argument) for argument in node.args], [])

    return ast.unparse(Replace().visit(parse(formula)))


def with_finite_slope(formula: str) -> str:
    """Return a law's text with `ROOT_FLOOR` added to |V| under each root, so that dI/dV is finite at 0 V."""

    class Floor(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.Call:
            arguments: list[ast.expr] = [self.visit(argument) for argument in node.args]
            if ast.unparse(node) == f"sqrt(abs({VOLTAGE}))":
                arguments = [ast.BinOp(arguments[0], ast.Add(), ast.Constant(ROOT_FLOOR))]
            return ast.Call(node.func, arguments, [])

    return ast.unparse(Floor().visit(parse(formula)))


@dataclass(frozen=True)
class Dialect:
    """How a target writes formulae.

    Attributes
    ----------
    functions : names of functions that differ from those of the language.
    name : how a name is written, with the placeholder {}.
    """

    functions: Mapping[str, str]
    name: str = "{}"

    def formula(self, formula: str) -> str:
        """Return a formula as the target writes it."""
        return self._written(parse(formula))[0]

    def _written(self, node: ast.expr) -> tuple[str, int]:
        """Return the text of a formula, and how tightly its outermost operator binds."""
        match node:
            case ast.Constant(value=int() | float() as value):
                return number(value), _ATOM
            case ast.Name(id=name):
                return (name if name == VOLTAGE else self.name.format(name)), _ATOM
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                sign, level, _ = _OPERATORS[type(op)]
                right_level = level if isinstance(op, ast.Add) else level + 1  # a - (b - c), a/(b*c), a*(b*c)
                return _bound(self._written(left), level) + sign + _bound(self._written(right), right_level), level
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return "-" + _bound(self._written(operand), _ATOM), 0
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                written = ", ".join(self._written(argument)[0] for argument in args)
                return f"{self.functions.get(name, name)}({written})", _ATOM
        raise ValueError(f"'{ast.unparse(node)}' is not in the language of cards")


def hoisted(formula: str, prefix: str) -> tuple[list[Step], str]:
    """Return what of a formula does not depend on V as steps named `prefix`1, `prefix`2 ..., and the formula with them.

    A simulator evaluates those once. Plain names and short numbers stay where they are. Division by such a step becomes
    multiplication with its inverse: ngspice's derivative of f/c is f' c/(c^2 + 1e-32), which is nothing for small c.
    """
    steps: dict[str, str] = {}

    def visit(node: ast.expr) -> ast.expr:
        if VOLTAGE not in names(node):
            text = ast.unparse(node)
            short = isinstance(node, ast.Constant) and len(repr(node.value)) < _SHORT
            if short or isinstance(node, ast.Name):
                return node
            return ast.Name(steps.setdefault(text, f"{prefix}{len(steps) + 1}"))
        match node:
            case ast.BinOp(left=left, op=ast.Div(), right=right) if VOLTAGE not in names(right):
                return ast.BinOp(visit(left), ast.Mult(), visit(ast.BinOp(ast.Constant(1), ast.Div(), right)))
            case ast.BinOp(left=left, op=op, right=right):
                return ast.BinOp(visit(left), op, visit(right))
            case ast.UnaryOp(op=op, operand=operand):
                return ast.UnaryOp(op, visit(operand))
            case ast.Call(func=func, args=args):
                return ast.Call(func, [visit(argument) for argument in args], [])
        return node

    changed = ast.unparse(visit(parse(formula)))
    return [Step(name, text) for text, name in steps.items()], changed


def number(value: float) -> str:
    """Return the shortest text that is read as exactly this number, and as a real one."""
    return repr(float(value))


def _bound(written: tuple[str, int], level: int) -> str:
    text, binding = written
    return text if binding >= level else f"({text})"
