"""Recurrent layers on crossbars.

A cell of an LSTM or a plain recurrent network has one crossbar, whose word lines carry input and hidden state:

    LSTM  (i, f, g, o) = W (x, h) + b,   c' = sigmoid(f) c + sigmoid(i) tanh(g),   h' = sigmoid(o) tanh(c')
    RNN   h' = tanh(W (x, h) + b)

torch's gated recurrent unit applies the reset gate to the hidden product alone, so it has a crossbar for each:

    GRU   (r, z, n) = W_i x + b_i,   (r_h, z_h, n_h) = W_h h + b_h,   r' = sigmoid(r + r_h),   z' = sigmoid(z + z_h)
          h' = (1 - z') tanh(n + r' n_h) + z' h

Gates and states are digital. All steps of a sequence meet the same devices. One crossbar has one input range, so an
LSTM's inputs and its hidden state, which lies in [-1, 1], share it: bring inputs to a similar size.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from calib.crossbar.crossbars import numbered_steps, same_devices, separate_draws, set_signed_weights
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear
from calib.errors import OptionError

State = tuple[torch.Tensor, ...]
_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


class RecurrentCell(nn.Module, ABC):
    """One step of a recurrent layer.

    Parameters
    ----------
    input_size, hidden_size : as in torch.
    devices : what the crossbars are made of.
    bias : 'line', 'digital' or None.
    options : mapping, array, first and dtype, see `MemristiveLinear`.
    """

    n_states: ClassVar[int] = 1
    digital: ClassVar[str] = "gates and states"
    """What of the layer is not on the crossbar."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size

    @abstractmethod
    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Return what of inputs (..., input) can be computed for all steps at once."""

    @abstractmethod
    def advance(self, prepared: torch.Tensor, state: State) -> State:
        """Return the next states (batch, hidden), the output first."""

    @abstractmethod
    def set_torch_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Take torch's weight_ih, weight_hh, and bias_ih, bias_hh, weight_hr where there are."""

    @classmethod
    def from_torch(cls, layer: Any, devices: Devices, *, bias: str | None = "line", **options: Any) -> Self:
        """Return the memristive form of a torch cell with its weights; `bias` is for one that has it."""
        options = {"dtype": layer.weight_ih.dtype, **options}
        if hasattr(layer, "nonlinearity"):
            options["nonlinearity"] = layer.nonlinearity
        place = bias if layer.bias else None
        result = cls(layer.input_size, layer.hidden_size, devices, bias=place, **options)  # type: ignore[call-arg]
        names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ()))
        result.set_torch_weights({name: getattr(layer, name).detach() for name in names})
        return result

    def extra_repr(self) -> str:
        """Return what the layer's line shows."""
        return f"{self.input_size}, {self.hidden_size}"

    def sizes(self) -> tuple[int, ...]:
        """Return the sizes of the states, the output first."""
        return (self.output_size, self.hidden_size)[: self.n_states]

    def forward(self, x: torch.Tensor, hx: torch.Tensor | State | None = None) -> torch.Tensor | State:
        """Return the next state of inputs (batch, input) or (input,); of an LSTM's cell (h, c)."""
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            raise OptionError(f"a cell of {self.input_size} inputs was given {tuple(x.shape)}; expected (batch, input)")
        rows = x if x.dim() == 2 else x.unsqueeze(0)
        if hx is None:
            state = tuple(rows.new_zeros(len(rows), size) for size in self.sizes())
        else:
            given = (hx,) if isinstance(hx, torch.Tensor) else tuple(hx)
            shapes = [(*x.shape[:-1], size) for size in self.sizes()]
            _expect_states(given, shapes)
            state = given if x.dim() == 2 else tuple(s.unsqueeze(0) for s in given)
        state = self.advance(self.prepare(rows), state)
        state = state if x.dim() == 2 else tuple(s.squeeze(0) for s in state)
        return state[0] if self.n_states == 1 else state


class _OneCrossbarCell(RecurrentCell):
    """A cell whose inputs and hidden state are on one crossbar."""

    gates: ClassVar[int]

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, devices: Devices, bias: str | None, options: dict
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.output_size = output_size
        outputs = self.gates * hidden_size
        self.projection: MemristiveLinear | None = None
        self.crossbar = MemristiveLinear(input_size + output_size, outputs, devices, bias=bias, **options)

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def set_torch_weights(self, weights: dict[str, torch.Tensor]) -> None:
        both = torch.cat((weights["weight_ih"], weights["weight_hh"]), dim=1)
        bias = weights["bias_ih"] + weights["bias_hh"] if "bias_ih" in weights else None
        set_signed_weights(self.crossbar, both, bias)
        if self.projection is not None:
            set_signed_weights(self.projection, weights["weight_hr"], None)


class MemristiveRNNCell(_OneCrossbarCell):
    """torch.nn.RNNCell on a crossbar, see `RecurrentCell`; nonlinearity is 'tanh' or 'relu'."""

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        devices: Devices,
        *,
        bias: str | None = "line",
        nonlinearity: str = "tanh",
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, hidden_size, devices, bias, options)
        if nonlinearity not in _ACTIVATIONS:
            raise OptionError(f"there is no nonlinearity '{nonlinearity}'; expected {' or '.join(_ACTIVATIONS)}")
        self.nonlinearity = nonlinearity
        separate_draws(self)

    def advance(self, prepared: torch.Tensor, state: State) -> State:
        return (_ACTIVATIONS[self.nonlinearity](self.crossbar(torch.cat((prepared, state[0]), dim=-1))),)


class MemristiveLSTMCell(_OneCrossbarCell):
    """torch.nn.LSTMCell on a crossbar, see `RecurrentCell`; with proj_size, h' = W_r h' on a second one."""

    gates = 4
    n_states = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        devices: Devices,
        *,
        bias: str | None = "line",
        proj_size: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, proj_size or hidden_size, devices, bias, options)
        if proj_size:
            self.projection = MemristiveLinear(hidden_size, proj_size, devices, bias=None, **options)
        separate_draws(self)

    def advance(self, prepared: torch.Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = self.crossbar(torch.cat((prepared, h), dim=-1)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h if self.projection is None else self.projection(h)), c


class MemristiveGRUCell(RecurrentCell):
    """torch.nn.GRUCell on two crossbars, see `RecurrentCell`."""

    def __init__(
        self, input_size: int, hidden_size: int, devices: Devices, *, bias: str | None = "line", **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.input_crossbar = MemristiveLinear(input_size, 3 * hidden_size, devices, bias=bias, **options)
        self.hidden_crossbar = MemristiveLinear(hidden_size, 3 * hidden_size, devices, bias=bias, **options)
        separate_draws(self)

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        return self.input_crossbar(x)

    def advance(self, prepared: torch.Tensor, state: State) -> State:
        (h,) = state
        r, z, n = prepared.chunk(3, dim=-1)
        r_h, z_h, n_h = self.hidden_crossbar(h).chunk(3, dim=-1)
        z = torch.sigmoid(z + z_h)
        n = torch.tanh(n + torch.sigmoid(r + r_h) * n_h)
        return ((1 - z) * n + z * h,)

    def set_torch_weights(self, weights: dict[str, torch.Tensor]) -> None:
        set_signed_weights(self.input_crossbar, weights["weight_ih"], weights.get("bias_ih"))
        set_signed_weights(self.hidden_crossbar, weights["weight_hh"], weights.get("bias_hh"))


class Recurrent(nn.Module):
    """A recurrent network over sequences, with the meaning of torch's arguments.

    Inputs are (step, batch, input), (batch, step, input) if batch_first, (step, input) or a PackedSequence; outputs are
    as torch's, the states (layer direction, batch, hidden) with them.

    Parameters
    ----------
    input_size, hidden_size : as in torch.
    devices : what the crossbars are made of.
    num_layers, batch_first, dropout, bidirectional : as in torch.
    bias : 'line', 'digital' or None.
    options : those of the cell; mapping, array, first and dtype, see `MemristiveLinear`.

    Raises
    ------
    OptionError
        When inputs or states do not fit.
    """

    cell: ClassVar[type[RecurrentCell]]
    digital: ClassVar[str] = RecurrentCell.digital
    """What of the layer is not on the crossbars."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        devices: Devices,
        *,
        num_layers: int = 1,
        bias: str | None = "line",
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise OptionError(f"a recurrent network has {num_layers} layers; expected at least 1")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        cells: list[RecurrentCell] = []
        size = input_size
        for _ in range(num_layers):
            cells += [self.cell(size, hidden_size, devices, bias=bias, **options) for _ in range(self.directions)]  # type: ignore[call-arg]
            size = cells[-1].output_size * self.directions
        self.cells = nn.ModuleList(cells)
        separate_draws(self)

    @classmethod
    def from_torch(cls, layer: nn.RNNBase, devices: Devices, *, bias: str | None = "line", **options: Any) -> Self:
        """Return the memristive form of torch's layer with its weights; `bias` is for one that has it."""
        names = ("num_layers", "batch_first", "dropout", "bidirectional")
        given: dict[str, Any] = {name: getattr(layer, name) for name in names}
        if isinstance(layer, nn.LSTM):
            given["proj_size"] = layer.proj_size
        if isinstance(layer, nn.RNN):
            given["nonlinearity"] = layer.nonlinearity
        given["dtype"] = layer.weight_ih_l0.dtype
        place = bias if layer.bias else None
        result = cls(layer.input_size, layer.hidden_size, devices, bias=place, **{**given, **options})
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        for index, cell in enumerate(result._cells):
            end = f"_l{index // result.directions}" + "_reverse" * (index % result.directions)
            found = {kind: getattr(layer, kind + end).detach() for kind in kinds if hasattr(layer, kind + end)}
            cell.set_torch_weights(found)
        return result

    @property
    def directions(self) -> int:
        """1, or 2 if bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def _cells(self) -> list[RecurrentCell]:
        return list(self.cells)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Return what the layer's line shows."""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, batch_first={self.batch_first}"

    def forward(
        self, x: "torch.Tensor | PackedSequence", hx: torch.Tensor | State | None = None
    ) -> tuple[Any, torch.Tensor | State]:
        """Return outputs of all steps in the form of the inputs, and the last states of all layers and directions."""
        if isinstance(x, PackedSequence):
            return self._packed(x, hx)
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size or not x.shape[-2]:
            raise OptionError(
                f"a recurrent network of {self.input_size} inputs was given {tuple(x.shape)}; expected "
                f"({'batch, step' if self.batch_first else 'step, batch'}, input) or (step, input)"
            )
        batched = x.dim() == 3
        steps = x.unsqueeze(1) if not batched else x.transpose(0, 1) if self.batch_first else x
        length, batch = steps.shape[:2]
        states = self._states(hx, batch, steps, batched)
        rows, states = self._layers(steps.flatten(0, 1), [batch] * length, states)
        y = rows.unflatten(0, (length, batch))
        if not batched:
            return y.squeeze(1), self._given_back(tuple(s.squeeze(1) for s in states))
        return (y.transpose(0, 1) if self.batch_first else y), self._given_back(states)

    def _packed(
        self, x: PackedSequence, hx: torch.Tensor | State | None
    ) -> tuple[PackedSequence, torch.Tensor | State]:
        sizes = x.batch_sizes.tolist()
        states = self._states(hx, sizes[0], x.data, True)
        if x.sorted_indices is not None:
            states = tuple(s.index_select(1, x.sorted_indices) for s in states)
        rows, states = self._layers(x.data, sizes, states)
        if x.unsorted_indices is not None:
            states = tuple(s.index_select(1, x.unsorted_indices) for s in states)
        packed = PackedSequence(rows, x.batch_sizes, x.sorted_indices, x.unsorted_indices)
        return packed, self._given_back(states)

    def _states(self, hx: torch.Tensor | State | None, batch: int, like: torch.Tensor, batched: bool) -> State:
        """Return the first states (layer direction, batch, hidden)."""
        shapes = [(len(self.cells), *([batch] if batched else []), size) for size in self._cells[0].sizes()]
        if hx is None:
            given = tuple(like.new_zeros(shape) for shape in shapes)
        else:
            given = (hx,) if isinstance(hx, torch.Tensor) else tuple(hx)
            _expect_states(given, shapes)
        return given if batched else tuple(s.unsqueeze(1) for s in given)

    def _layers(self, rows: torch.Tensor, sizes: list[int], states: State) -> tuple[torch.Tensor, State]:
        """Return outputs (row, hidden direction) of rows that are grouped by steps of `sizes`, and the last states."""
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                rows = functional.dropout(rows, self.dropout, self.training)
            outputs = []
            for direction in range(self.directions):
                index = layer * self.directions + direction
                state = tuple(s[index] for s in states)
                y, state = _run(self._cells[index], rows, sizes, state, backwards=direction == 1)
                outputs.append(y)
                last.append(state)
            rows = torch.cat(outputs, dim=-1)
        return rows, tuple(torch.stack(parts) for parts in zip(*last, strict=True))

    def _given_back(self, states: State) -> torch.Tensor | State:
        return states[0] if self.cell.n_states == 1 else states


class MemristiveRNN(Recurrent):
    """torch.nn.RNN on crossbars, see `Recurrent`."""

    cell = MemristiveRNNCell


class MemristiveLSTM(Recurrent):
    """torch.nn.LSTM on crossbars, see `Recurrent`."""

    cell = MemristiveLSTMCell


class MemristiveGRU(Recurrent):
    """torch.nn.GRU on crossbars, see `Recurrent`."""

    cell = MemristiveGRUCell


def _run(
    cell: RecurrentCell, rows: torch.Tensor, sizes: list[int], state: State, *, backwards: bool
) -> tuple[torch.Tensor, State]:
    """Return outputs (row, hidden) of one cell over a sequence, and its last state.

    Sequences are ordered by length, so the first `sizes[t]` of them have a step t. States of the others wait: forwards
    those of sequences that have ended, backwards those of sequences that have not begun.
    """
    outputs: list[torch.Tensor] = [rows] * len(sizes)
    order = range(len(sizes))
    with same_devices(cell), numbered_steps(cell) as go_to:
        if len(set(sizes)) == 1:  # steps of an input follow one another, as rows of an input do elsewhere
            inputs = rows.unflatten(0, (len(sizes), sizes[0])).transpose(0, 1)
            prepared = cell.prepare(inputs).unbind(1)
        else:
            prepared = cell.prepare(rows).split(sizes)
        for t in reversed(order) if backwards else order:
            n = sizes[t]
            go_to(t)
            new = cell.advance(prepared[t], tuple(s[:n] for s in state))
            outputs[t] = new[0]
            whole = n == len(state[0])
            state = new if whole else tuple(torch.cat((a, b[n:])) for a, b in zip(new, state, strict=True))
    return torch.cat(outputs), state


def _expect_states(given: State, shapes: list[tuple[int, ...]]) -> None:
    found = [tuple(s.shape) for s in given]
    if found != shapes:
        raise OptionError(
            f"states of a recurrent layer are {', '.join(map(str, found))}; expected {', '.join(map(str, shapes))}"
        )
