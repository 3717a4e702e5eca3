"""What lowers the error and the energy: draws, averages, energy in the loss, schedules; arrays; and that all resume."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from calib import runs, schedules, training, training_step
from calib.averaging import AveragedNetwork, Averaging
from calib.crossbar import drawing
from calib.crossbar.array import Array
from calib.crossbar.devices import Devices, generator
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.errors import OptionError
from calib.evaluation import chip_performance
from calib.networks import build_network
from calib.training import resume_run
from tests.simple_devices import device, everything
from tests.test_training import DATA, assert_same, short

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = {
    "optimizer": "sgd",
    "momentum": 0.8,
    "schedule": "one-cycle",
    "warm_up": 0.2,
    "draws": 2,
    "average": "exponential:0.9",
    "energy_weight": 0.5,
    "clip_gradient": 1.0,
    "patience": 3,
    "array": "rows=4,adc_bits=8,adc_range=99.9%",
    "mapping": "lowest:clip=3sigma",
}


def test_without_options_a_training_is_the_plain_loop(tmp_path) -> None:
    """The same numbers to the last bit as those of a loop over epochs and batches with nothing else in it."""
    run = short(tmp_path / "run", everything(), epochs=2, l1=0.01)
    split = torch.randperm(120, generator=generator(0, "split")).numpy()
    rows = np.sort(split[24:])
    images, labels = torch.tensor(DATA.train_images[rows]), torch.tensor(DATA.train_labels[rows])
    model = build_network((6, 4, 3), "double", run.devices(), (0, 0))
    layers = memristive_layers(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    for epoch in (1, 2):
        for index, layer in enumerate(layers):
            layer.generator = generator(0, 0, "devices", epoch, index)
        inputs = training.encoded(model, images)
        batches = torch.randperm(96, generator=generator(0, 0, "order", epoch)).split(16)
        for index, batch in enumerate(batches):
            fraction = (epoch - 1 + index / len(batches)) / 2
            optimizer.param_groups[0]["lr"] = 0.01 * 0.5 * (1 + math.cos(math.pi * fraction))
            optimizer.zero_grad()
            for layer, drawn in zip(layers, drawing.draw(layers), strict=True):
                layer.drawn = drawn
            functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            for layer in layers:
                layer.drawn = None
                assert layer.weight.grad is not None
                layer.weight.grad.add_(layer.weight.detach().sign(), alpha=0.01)
            optimizer.step()
            for layer in layers:
                layer.project()
    state = run.checkpoint(0)
    assert state is not None
    for name, value in model.state_dict().items():
        assert torch.equal(value, state["network"][name])


def test_an_interrupted_run_with_every_option_continues_with_the_same_numbers(tmp_path) -> None:
    options = {**ALL, "networks": 2, "epochs": 4, "validation_every": 1}
    whole = short(tmp_path / "whole", everything(), **options)

    def stop(index: int, row: dict[str, float]) -> None:
        if index == 1 and row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(tmp_path / "cut", everything(), progress=stop, **options)
    assert len(runs.open_run(tmp_path / "cut").history(1)) == 2
    assert_same(whole, short(tmp_path / "cut", everything(), resume=True, **options))


def test_a_killed_run_continues_with_the_same_numbers(tmp_path) -> None:
    whole = short(tmp_path / "whole", everything(), average="tail:0.5", draws=2)
    code = (
        "import os, signal; from pathlib import Path; from calib import training\n"
        "from tests.test_training import short; from tests.simple_devices import everything\n"
        "import torch; torch.set_num_threads(1); steps, real = [], training.step\n"
        "def step(*args):\n"
        "    steps.append(0)\n"
        "    if len(steps) == 15: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args)\n"
        "training.step = step\n"
        f"short(Path({str(tmp_path / 'cut')!r}), everything(), average='tail:0.5', draws=2)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == -signal.SIGKILL
    assert len(runs.open_run(tmp_path / "cut").history(0)) == 2
    assert_same(whole, resume_run(tmp_path / "cut", data=DATA))


def test_a_run_from_before_the_options_opens_and_continues(tmp_path) -> None:
    whole = short(tmp_path / "whole", epochs=3)
    cut = short(tmp_path / "cut", epochs=3, progress=None)
    record = json.loads((cut.path / "run.json").read_text())
    later = (
        "array",
        "network",
        "momentum",
        "warm_up",
        "draws",
        "average",
        "energy_weight",
        "clip_gradient",
        "patience",
        "scale",
        "variation",
        "bias",
        "hidden_voltage",
    )
    for name in later:
        del record["options"][name]
    (cut.path / "run.json").write_text(json.dumps(record))
    (cut.folder(0) / "checkpoint.pt").unlink()
    opened = runs.open_run(cut.path)
    assert opened.options == whole.options
    assert_same(whole, resume_run(cut.path, data=DATA))


def direct_power(layer: MemristiveLinear, x: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the mean power of newly drawn devices, from the law of every device at every input."""
    own, devices = torch.Generator().manual_seed(seed), layer.devices
    g, _ = layer.mapping.conductances(layer.weight, devices.g_off, devices.g_on)
    for member in devices.stages:
        g = member.conductance(g, own, None)
    deviates = devices.conduction.deviates(tuple(g.shape), own, g.dtype)
    v = devices.input_voltage * functional.pad(x, (0, 1), value=1.0)
    parameters = devices.conduction.parameters(g, deviates)
    currents = devices.conduction.law.current(v[:, None, :, None], xp=torch, **parameters)
    return (v[:, None, :, None] * currents).sum() / len(x)


@pytest.mark.parametrize("mapping", ["double", "lowest", "bit-slicing:slices=2,bits=1"])
@pytest.mark.parametrize("array", ["", "rows=4,adc_bits=8,adc_range=array"])
def test_the_energy_in_the_loss_is_that_of_the_drawn_devices(mapping: str, array: str) -> None:
    """Value and gradients, by weights and by inputs, agree with the direct evaluation to the interpolation's error."""
    devices = Devices.from_model(everything(), tolerance=1e-9)
    options = {"mapping": mapping, "array": Array.from_options(array), "dtype": torch.float64}
    layer = MemristiveLinear(6, 3, devices, first=torch.Generator().manual_seed(1), **options)
    x = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    layer.generator = torch.Generator().manual_seed(3)
    _, power, _ = training_step.drawn_pass(layer, [layer], x, torch.zeros(5, dtype=torch.int64), True)
    assert power is not None
    expected = direct_power(layer, x, 3)
    torch.testing.assert_close(power, expected, rtol=1e-6, atol=0)
    for found, known in zip(
        torch.autograd.grad(power, (layer.weight, x)), torch.autograd.grad(expected, (layer.weight, x)), strict=True
    ):
        torch.testing.assert_close(found, known, rtol=1e-5, atol=1e-6 * float(known.abs().max()))
    assert not layer.wants_power
    assert not layer.reading.measures


def test_energy_flows_through_the_layers_before() -> None:
    """The power of the second layer depends on the weights of the first by its inputs: finite differences agree."""
    devices = Devices.from_model(device(), tolerance=1e-9)
    first = torch.Generator().manual_seed(1)
    layers = [
        MemristiveLinear(n_in, n_out, devices, mapping="average", first=first, dtype=torch.float64)
        for n_in, n_out in ((6, 4), (4, 3))
    ]
    model = torch.nn.Sequential(layers[0], torch.nn.Sigmoid(), layers[1])
    x = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def power() -> torch.Tensor:
        for layer in layers:
            layer.generator = torch.Generator().manual_seed(3)
        found = training_step.drawn_pass(model, layers, x, torch.zeros(5, dtype=torch.int64), True)[1]
        assert found is not None
        return found

    weight = layers[0].weight
    gradient = torch.autograd.grad(power(), weight)[0]
    for row, column in ((0, 0), (2, 1), (4, 3)):
        ends = []
        for step in (1e-6, -2e-6):
            weight.data[row, column] += step
            ends.append(float(power().detach()))
        weight.data[row, column] += 1e-6
        assert float(gradient[row, column]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_a_power_without_a_gradient_is_refused() -> None:
    class Detached(torch.nn.Module):
        def __init__(self, inner: MemristiveLinear) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x)
            self.inner.reading.power = torch.as_tensor(self.inner.reading.power).detach()
            return y

    model = Detached(MemristiveLinear(6, 3, Devices.from_model(device())))
    with pytest.raises(OptionError, match=r"power of the layer \(6, 3.*has no gradient"):
        training_step.drawn_pass(model, [model.inner], torch.rand(2, 6), torch.zeros(2, dtype=torch.int64), True)
    assert not model.inner.wants_power


def test_the_full_power_is_that_of_all_devices_at_g_on() -> None:
    devices = Devices.from_model(device()).ideal()
    layers = memristive_layers(build_network((6, 4, 3), "double", devices, (0,)))
    by_hand = devices.g_on * 0.5**2 * (7 * 8 + 5 * 6)
    assert training_step.full_power(layers) == pytest.approx(by_hand, rel=1e-9)


def test_energy_in_the_loss_lowers_the_power(tmp_path) -> None:
    found = []
    for weight in (0.0, 50.0):
        run = short(tmp_path / f"{weight}", energy_weight=weight, learning_rate=0.05, epochs=8, validation_every=8)
        images, labels = torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels)
        measured = chip_performance(run.network(0, run.devices()), images, labels, seed=0, chips=range(5))
        found.append(measured.power.sum(1).mean())
    assert found[1] < 0.8 * found[0]


def test_several_draws_have_the_mean_of_their_gradients() -> None:
    devices = Devices.from_model(everything())
    images, labels = torch.tensor(DATA.train_images[:16]), torch.tensor(DATA.train_labels[:16])

    def moved(draws: int, passes: int) -> torch.Tensor:
        """Return the mean movement of plain gradient descent over passes that start at the same weights."""
        model = build_network((6, 4, 3), "lowest", devices, (0,))
        layers = memristive_layers(model)
        for layer in layers:
            layer.generator = torch.Generator().manual_seed(4)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        total = torch.zeros_like(layers[0].weight)
        for _ in range(passes):
            model.load_state_dict(start)
            training.step(model, layers, torch.optim.SGD(model.parameters(), lr=1.0), images, labels, 0.0, draws)
            total += layers[0].weight.detach() - start["0.weight"]
        return total / passes

    torch.testing.assert_close(moved(3, 1), moved(1, 3), rtol=1e-4, atol=1e-6)
    assert float((moved(3, 1) - moved(1, 1)).abs().max()) > 1e-4


def test_a_clipped_gradient_has_the_norm() -> None:
    model = build_network((6, 4, 3), "lowest", Devices.from_model(device()), (0,))
    images, labels = torch.tensor(DATA.train_images[:16]), torch.tensor(DATA.train_labels[:16])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    training.step(model, memristive_layers(model), optimizer, images, labels, 0.5, 1, 0.0, 1e-3)
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None))
    assert norm == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("text", ["exponential:0.75", "tail:0.5"])
def test_averages_are_those_of_their_equations(text: str) -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    averaging = Averaging.from_text(text)
    assert averaging is not None
    assert averaging.text == text
    average = AveragedNetwork(layer, averaging)
    values = np.random.default_rng(0).normal(size=8)
    for index, value in enumerate(values):
        torch.nn.init.constant_(layer.weight, value)
        average.update(layer, (index + 1) / 8)
        done = values[: index + 1]
        if text == "tail:0.5":
            expected = done[4:].mean() if index >= 4 else done[-1]
        else:
            expected = done[0]
            for t, w in enumerate(done[1:], 2):
                b = min(0.75, (t - 1) / t)
                expected = b * expected + (1 - b) * w
        assert float(next(average.network.parameters()).detach()) == pytest.approx(expected, rel=1e-5)


def test_an_average_is_what_is_validated_and_kept(tmp_path) -> None:
    run = short(tmp_path / "run", everything(), average="exponential:0.9", epochs=3)
    state = run.checkpoint(0)
    assert state is not None
    assert state["best_epoch"] in (1, 3)
    plain = short(tmp_path / "plain", everything(), epochs=3).checkpoint(0)
    assert plain is not None
    for name, value in plain["network"].items():
        assert torch.equal(value, state["network"][name])  # averaging does not change the training
    assert not torch.equal(state["average"]["network"]["0.weight"], state["network"]["0.weight"])
    if state["best_epoch"] == 3:
        assert torch.equal(state["best"]["0.weight"], state["average"]["network"]["0.weight"])


def test_patience_stops_and_stays_stopped(tmp_path) -> None:
    options = {"learning_rate": 1e-9, "patience": 2, "validation_every": 1, "epochs": 30, "ideal": True}
    run = short(tmp_path / "run", **options)
    errors = [row["validation_error_median"] for row in run.history(0)]
    best = int(np.argmin(errors))
    assert len(errors) == best + 3 < 30
    before = (run.folder(0) / "checkpoint.pt").read_bytes()
    resume_run(run.path, data=DATA)
    assert (run.folder(0) / "checkpoint.pt").read_bytes() == before


def test_schedules_have_their_shapes() -> None:
    one_cycle = [schedules.factor("one-cycle", f) for f in (0.0, 0.15, 0.3, 0.65, 1.0)]
    assert one_cycle == pytest.approx([0.04, 0.52, 1.0, 0.500002, 4e-6], rel=1e-6)
    torch_rates = []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    other = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=101, cycle_momentum=False)
    for _ in range(101):
        torch_rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(torch_rates) < 101:
            other.step()
    # torch turns at 0.3 * 101 - 1 = 29.3 of 100 steps, which moves its rates by up to the slope of a cosine
    assert np.abs(np.array(torch_rates) - [schedules.factor("one-cycle", i / 100) for i in range(101)]).max() < 0.04
    assert schedules.factor("cosine", 0.05, warm_up=0.1) == pytest.approx(0.5 * schedules.factor("cosine", 0.05))
    assert schedules.factor("cosine", 0.5, warm_up=0.1) == schedules.factor("cosine", 0.5)


def test_a_run_is_trained_and_evaluated_on_its_array(tmp_path) -> None:
    array = Array.from_options("rows=4,columns=4,word_segment=100,bit_segment=100,dac_bits=4,adc_bits=5,adc_range=99%")
    run = short(tmp_path / "run", array=array, mapping="offset", epochs=2)
    assert run.options.array == runs.array_text(array)
    assert runs.open_run(run.path).array() == array
    model = run.network(0, run.devices())
    for layer in memristive_layers(model):
        assert layer.array == array
        assert layer.adc_is_calibrated
        assert layer.mapping.text == "offset"
    other = Array.from_options("rows=3")
    assert all(layer.array == other for layer in memristive_layers(run.network(0, run.devices(), other)))


def test_ranges_are_calibrated_at_the_start_of_each_epoch(tmp_path) -> None:
    found = []
    for epochs in (1, 2):
        run = short(tmp_path / f"{epochs}", array="adc_bits=6,adc_range=calibrated", epochs=epochs, schedule="constant")
        state = run.checkpoint(0)
        assert state is not None
        found.append(state["network"]["0.adc_range"])
    assert float(found[0]) > 0
    assert not torch.equal(*found)


def test_a_resumed_run_knows_the_same_array_by_other_words(tmp_path) -> None:
    short(tmp_path / "run", epochs=1, array="columns=8,rows=4")
    short(tmp_path / "run", epochs=1, array="rows=4,columns=8.0", resume=True)
    with pytest.raises(OptionError, match="has array = rows=4,columns=8, but"):
        short(tmp_path / "run", epochs=1, array="rows=4", resume=True)
