"""Recurrent layers on crossbars: torch's results on ideal devices, states, packed sequences, devices of a sequence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from calib import nn as memristive
from calib.errors import OptionError
from tests.nonidealities.nodes import read_noise_node
from tests.simple_devices import device, everything, range_only

CELLS = {
    nn.RNNCell: memristive.MemristiveRNNCell,
    nn.LSTMCell: memristive.MemristiveLSTMCell,
    nn.GRUCell: memristive.MemristiveGRUCell,
}
NETWORKS = {
    nn.RNN: memristive.MemristiveRNN,
    nn.LSTM: memristive.MemristiveLSTM,
    nn.GRU: memristive.MemristiveGRU,
}
IDEAL = memristive.Devices.from_model(range_only()).ideal()
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def known(layer: nn.Module) -> nn.Module:
    """Return a layer of double precision with weights that follow from nothing else."""
    layer.double()
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = 0.6 * numbers(*parameter.shape, seed=10 + seed)
    return layer


def states(kind: type, *shape: int, projected: int = 0):
    """Return a first state: (h, c) for an LSTM, else h."""
    if "LSTM" not in kind.__name__:
        return numbers(*shape, seed=5)
    return numbers(*shape[:-1], projected or shape[-1], seed=5), 2 * numbers(*shape, seed=6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("batch", [(), (4,)])
def test_a_cell_on_ideal_devices_is_that_of_torch(kind: type, bias: bool, batch: tuple[int, ...]) -> None:
    theirs = known(kind(3, 5, bias=bias))
    ours = CELLS[kind].from_torch(theirs, IDEAL)
    x, hx = numbers(*batch, 3), states(kind, *batch, 5)
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)
    torch.testing.assert_close(ours(x, hx), theirs(x, hx), **CLOSE)


def test_a_plain_cell_takes_the_other_nonlinearity() -> None:
    theirs = known(nn.RNNCell(3, 5, nonlinearity="relu"))
    ours = memristive.MemristiveRNNCell.from_torch(theirs, IDEAL)
    torch.testing.assert_close(ours(numbers(2, 3)), theirs(numbers(2, 3)), **CLOSE)
    with pytest.raises(OptionError, match="no nonlinearity 'sine'; expected tanh or relu"):
        memristive.MemristiveRNNCell(3, 5, IDEAL, nonlinearity="sine")


@st.composite
def networks(draw):
    kind = draw(st.sampled_from(list(NETWORKS)))
    options = {
        "num_layers": draw(st.integers(1, 3)), "bidirectional": draw(st.booleans()), "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }  # fmt: skip
    hidden = draw(st.integers(2, 5))
    if kind is nn.LSTM and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, hidden - 1))
    return (
        kind,
        (draw(st.integers(1, 4)), hidden),
        options,
        draw(st.integers(1, 5)),
        draw(st.sampled_from([None, 1, 3])),
    )


@settings(max_examples=40)
@given(drawn=networks(), with_state=st.booleans())
def test_a_network_on_ideal_devices_is_that_of_torch(drawn, with_state: bool) -> None:
    kind, sizes, options, steps, batch = drawn
    theirs = known(kind(*sizes, **options))
    ours = NETWORKS[kind].from_torch(theirs, IDEAL)
    if batch is None:
        x = numbers(steps, sizes[0])
    else:
        x = numbers(batch, steps, sizes[0]) if options["batch_first"] else numbers(steps, batch, sizes[0])
    layers = options["num_layers"] * (1 + options["bidirectional"])
    shape = (layers, *([] if batch is None else [batch]), sizes[1])
    hx = states(kind, *shape, projected=options.get("proj_size", 0)) if with_state else None
    torch.testing.assert_close(ours(x, hx), theirs(x, hx), **CLOSE)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_packed_sequences(kind: type, enforce_sorted: bool) -> None:
    theirs = known(kind(3, 4, num_layers=2, bidirectional=True, batch_first=True))
    ours = NETWORKS[kind].from_torch(theirs, IDEAL)
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 5, 1, 3]
    packed = pack_padded_sequence(numbers(4, 5, 3), lengths, batch_first=True, enforce_sorted=enforce_sorted)
    for hx in (None, states(kind, 4, 4, 4)):
        found, expected = ours(packed, hx), theirs(packed, hx)
        assert isinstance(found[0], PackedSequence)
        for mine, torchs in zip(pad_packed_sequence(found[0]), pad_packed_sequence(expected[0]), strict=True):
            torch.testing.assert_close(mine, torchs, **CLOSE)
        torch.testing.assert_close(found[1], expected[1], **CLOSE)


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_are_those_of_torch(kind: type) -> None:
    theirs = known(kind(3, 4))
    ours = NETWORKS[kind].from_torch(theirs, IDEAL, mapping="lowest")
    x, y = (numbers(6, 2, 3).requires_grad_() for _ in range(2))
    ours(x)[0].square().sum().backward()
    theirs(y)[0].square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-9)
    cell = ours.cells[0]
    if kind is nn.GRU:
        by_input, by_hidden = cell.input_crossbar.weight.grad[:-1].T, cell.hidden_crossbar.weight.grad[:-1].T
    else:
        by_input, by_hidden = cell.crossbar.weight.grad[:-1].T.split((3, 4), dim=1)
    torch.testing.assert_close(by_input, theirs.weight_ih_l0.grad, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(by_hidden, theirs.weight_hh_l0.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", NETWORKS)
def test_all_steps_meet_the_same_devices(kind: type) -> None:
    """A sequence of equal inputs whose state is put back at every step gives equal outputs."""
    devices = memristive.Devices.from_model(everything())
    ours = NETWORKS[kind].from_torch(known(kind(3, 4)), devices)
    cell = ours.cells[0]
    x = 0.5 * numbers(7, 2, 3)
    with memristive.same_devices(ours):
        y, _ = ours(x)
        state = x.new_zeros(2, 4)
        hx = (state, state) if kind is nn.LSTM else state
        for t in range(7):
            hx = cell(x[t], hx)
            torch.testing.assert_close(hx[0] if kind is nn.LSTM else hx, y[t])
    assert not torch.allclose(ours(x)[0], ours(x)[0])


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_step_is_a_reading_of_its_own(kind: type) -> None:
    """Noise of readings differs between steps, and does not depend on what else is in the batch."""
    devices = memristive.Devices.from_model(device(read_noise=read_noise_node()))
    ours = NETWORKS[kind].from_torch(known(kind(3, 4, bidirectional=True, batch_first=True)), devices)
    cell = ours.cells[1]
    hidden = cell.hidden_crossbar if kind is nn.GRU else cell.crossbar
    first: list[int] = []
    hidden.register_forward_pre_hook(lambda layer, inputs: first.append(layer.reading.first_image))
    x = 0.5 * numbers(3, 4, 3)

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = ours

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x)[0]

    with memristive.held_chips(Outputs(), 0, range(2)) as chips:
        whole = chips(x)
        assert len(set(first)) == 4
        torch.testing.assert_close(chips(x[2:], first_image=2), whole[:, 2:], rtol=1e-9, atol=1e-12)
    assert hidden.reading.images is None


def test_gradients_add_up_over_steps() -> None:
    """Finite differences by one weight, with drawn devices held: the gradient counts every step."""
    devices = memristive.Devices.from_model(everything())
    ours = memristive.MemristiveLSTM.from_torch(known(nn.LSTM(2, 3)), devices)
    one = ours.cells[0].crossbar
    x = 0.5 * numbers(4, 2, 2)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        one.generator = torch.Generator().manual_seed(3)
        return torch.func.functional_call(ours, {"cells.0.crossbar.weight": weight}, (x,))[0].square().sum()

    weight = one.weight.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(weight), weight)
    direction = numbers(*weight.shape, seed=8) * (weight > 0.05)
    step = 1e-5
    with torch.no_grad():
        slope = (loss(weight + step * direction) - loss(weight - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-9)


def test_dropout_between_layers_is_for_training() -> None:
    ours = memristive.MemristiveGRU.from_torch(known(nn.GRU(3, 4, num_layers=2, dropout=0.5)), IDEAL)
    for cell in ours.cells:
        cell.input_crossbar.set_input_range(2.0)  # dropout doubles what it leaves
    x = numbers(5, 2, 3)
    assert not torch.allclose(ours(x)[0], ours(x)[0])
    ours.eval()
    torch.testing.assert_close(ours(x)[0], ours(x)[0])


def test_what_does_not_fit_is_refused() -> None:
    ours = memristive.MemristiveLSTM(3, 4, IDEAL, batch_first=True, dtype=torch.float64)
    with pytest.raises(OptionError, match=r"3 inputs was given \(2, 5, 4\); expected \(batch, step, input\)"):
        ours(numbers(2, 5, 4))
    with pytest.raises(OptionError, match=r"was given \(2, 0, 3\)"):
        ours(numbers(2, 0, 3))
    with pytest.raises(OptionError, match=r"states of a recurrent layer are \(1, 2, 5\), \(1, 2, 4\)"):
        ours(numbers(2, 5, 3), (numbers(1, 2, 5), numbers(1, 2, 4)))
    with pytest.raises(OptionError, match=r"are \(1, 2, 4\); expected \(1, 2, 4\), \(1, 2, 4\)"):
        ours(numbers(2, 5, 3), numbers(1, 2, 4))
    with pytest.raises(OptionError, match="0 layers; expected at least 1"):
        memristive.MemristiveGRU(3, 4, IDEAL, num_layers=0)
    with pytest.raises(OptionError, match=r"a cell of 3 inputs was given \(2, 4\)"):
        memristive.MemristiveGRUCell(3, 4, IDEAL)(torch.zeros(2, 4))
