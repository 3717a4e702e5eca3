"""Moments of the devices' currents, the step that draws from them, and learned scales."""

import math

import numpy as np
import pytest
import torch

from calib import runs
from calib.crossbar.array import Array
from calib.crossbar.devices import Devices, generator
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.errors import OptionError
from calib.evaluation import chip_performance
from calib.learned_scale import LearnedScale
from calib.moment_step import Inputs, MomentStep, moments_of, prepared
from calib.moments import Expansion, Moments
from calib.networks import build_network
from calib.training import resume_run
from calib.training_step import drawn_pass
from tests.simple_devices import device, everything, iv_node, range_only
from tests.test_training import DATA, assert_same, short

pytestmark = pytest.mark.usefixtures("one_thread")

MOMENTS = {"variation": "moments", "scale": "learned", "mapping": "lowest", "learning_rate": 0.05}


def test_an_expansion_gives_back_a_table_of_two_products() -> None:
    x, u = np.linspace(0, 1, 65)[:, None], np.linspace(0, 1, 21)
    table = x**2 * (1 + 3 * u) + 0.2 * x**4 * u**3
    found = Expansion.of(table)
    assert found.terms == 2
    assert found.error < 1e-9
    inputs, share = torch.linspace(0, 1, 11), torch.tensor([0.0, 0.3, 1.0])
    features, functions = found.of_inputs(inputs), found.of_shares(share)
    values = features[0][:, None] + torch.einsum("ti,tu->iu", features[1:], functions)
    expected = inputs[:, None] * (1 + 3 * share) + 0.2 * inputs[:, None] ** 2 * share**3
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=2e-4)  # linear between 65 nodes


def test_the_gradients_of_an_expansion_are_those_of_its_values() -> None:
    found = Expansion.of(np.linspace(0, 1, 33)[:, None] ** 2 * np.linspace(1, 2, 21) ** 2)
    exact = Expansion(found.inputs.double(), found.shares.double(), found.error)
    share = torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exact.of_shares, (share,))
    x = torch.tensor([0.11, 0.5, 0.98], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exact.of_inputs, (x,))


@pytest.mark.parametrize(
    ("mapping", "tree"),
    [
        ("double", everything()),
        ("lowest", device()),
        ("average", device()),
        ("bit-slicing:slices=2,bits=1", everything()),
    ],
    ids=["double", "lowest", "average", "bit-slicing"],
)
def test_mean_spread_and_power_are_those_of_drawn_devices(mapping: str, tree) -> None:
    """Over 2000 chips; 4 standard errors of mean and standard deviation, and the expansion's error."""
    devices = Devices.from_model(tree)
    layer = MemristiveLinear(12, 3, devices, mapping=mapping, first=torch.Generator().manual_seed(1))
    model = torch.nn.Sequential(layer)
    x = torch.rand(4, 12, generator=torch.Generator().manual_seed(2))
    x[0, 0] = 0.0
    layer.generator = torch.Generator().manual_seed(3)
    outputs, powers = [], []
    with torch.no_grad():
        for _ in range(2000):
            _, power, logits = drawn_pass(model, [layer], x, torch.zeros(4, dtype=torch.int64), True)
            outputs.append(logits)
            powers.append(power)
        step = MomentStep(moments_of(model), torch.Generator().manual_seed(4))
        repeated = x.repeat(2000, 1)
        found, power = step.outputs(model, repeated)
    drawn, found = torch.stack(outputs), found.view(2000, 4, 3)
    spread = drawn.std(0)
    torch.testing.assert_close(found.mean(0), drawn.mean(0), rtol=0.005, atol=float(6 * spread.max() / math.sqrt(2000)))
    torch.testing.assert_close(found.std(0), spread, rtol=0.1, atol=0)
    assert float(power) == pytest.approx(float(torch.stack(powers).mean()), rel=0.01)


def test_images_that_are_prepared_once_give_the_same_outputs() -> None:
    devices = Devices.from_model(device())
    model = build_network((6, 4, 3), "lowest", devices, (0,))
    moments, x = moments_of(model), torch.rand(9, 6)
    found = [
        MomentStep(moments, torch.Generator().manual_seed(1)).outputs(model, images)
        for images in (x, prepared(moments, model, x))
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    inputs = prepared(moments, model, x)
    assert isinstance(inputs, Inputs)
    assert len(inputs[torch.tensor([2, 5])]) == 2


def test_moments_of_devices_without_spread_have_no_variance() -> None:
    ideal = Devices.from_model(range_only())
    found = Moments.of(ideal)
    model = torch.nn.Sequential(MemristiveLinear(6, 3, ideal, mapping="lowest"))
    x = torch.rand(5, 6)
    with torch.no_grad():
        outputs, _ = MomentStep((found,), torch.Generator()).outputs(model, x)
        torch.testing.assert_close(outputs, model(x), rtol=1e-3, atol=1e-3)


def test_a_training_on_moments_learns_what_chips_do(tmp_path) -> None:
    run = short(tmp_path / "run", device(), epochs=15, validation_every=15, energy_weight=0.1, **MOMENTS)
    history = run.history(0)
    assert history[-1]["validation_error_median"] < 0.3 * max(history[0]["validation_error_median"], 0.1)
    assert history[-1]["train_loss"] < 0.4 * history[0]["train_loss"]


@pytest.mark.parametrize("options", [MOMENTS, {"scale": "learned"}, {"variation": "moments", "draws": 2}])
def test_an_interrupted_run_continues_with_the_same_numbers(tmp_path, options) -> None:
    options = {**options, "average": "exponential:0.9", "energy_weight": 1.0, "networks": 2, "epochs": 3}
    whole = short(tmp_path / "whole", everything(), **options)

    def stop(network: int, row: dict[str, float]) -> None:
        if network == 1 and row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(tmp_path / "cut", everything(), progress=stop, **options)
    assert_same(whole, resume_run(tmp_path / "cut", data=DATA))


@pytest.mark.parametrize("mapping", ["double", "lowest", "average"])
def test_a_learned_scale_is_the_largest_weight(mapping: str) -> None:
    """After steps of any size at least one share is 1, and the usual mapping gives the same conductances."""
    devices = Devices.from_model(device())
    model = build_network((6, 4, 3), mapping, devices, (0,))
    layers = memristive_layers(model)
    plain = [layer.mapping for layer in layers]
    optimizer = LearnedScale(model.parameters(), layers, lambda given: torch.optim.SGD(given, lr=0.3))
    x, labels = torch.rand(16, 6), torch.arange(16) % 3
    for _ in range(4):
        optimizer.zero_grad()
        drawn_pass(model, layers, x, labels, False)[0].backward()
        optimizer.step()
    for layer, usual, share in zip(layers, plain, optimizer.shares, strict=True):
        assert float(share.detach().abs().max()) == 1.0
        for one, other in zip(
            layer.mapping.conductances(layer.weight, 1e-6, 5e-6), usual.conductances(layer.weight, 1e-6, 5e-6),
            strict=True,
        ):  # fmt: skip
            torch.testing.assert_close(one, other)


def test_the_gradients_of_a_learned_scale_are_those_of_the_outputs() -> None:
    """By finite differences of the loss of the same devices, with shares below 1, where nothing is put back."""
    devices = Devices.from_model(device(), tolerance=1e-9)
    first = torch.Generator().manual_seed(1)
    layer = MemristiveLinear(6, 3, devices, mapping="average", dtype=torch.float64, first=first)
    model, x = torch.nn.Sequential(layer), torch.rand(8, 6, dtype=torch.float64, generator=first)
    optimizer = LearnedScale(model.parameters(), [layer], lambda given: torch.optim.SGD(given, lr=0.0))
    share, log_scale = optimizer.shares[0], optimizer.log_scales[0]

    def loss() -> torch.Tensor:
        layer.generator = torch.Generator().manual_seed(3)
        return drawn_pass(model, [layer], x, torch.arange(8) % 3, False)[0]

    optimizer.zero_grad()
    loss().backward()
    optimizer.step()
    assert share.grad is not None
    assert log_scale.grad is not None
    largest = int(share.detach().abs().argmax())
    for tensor, gradient, place in (
        (log_scale, log_scale.grad, 0),
        (share, share.grad.flatten(), (largest + 1) % share.numel()),
        (share, share.grad.flatten(), (largest + 5) % share.numel()),
    ):
        ends = []
        for change in (1e-5, -2e-5):
            tensor.data.view(-1)[place] += change
            optimizer._write()
            ends.append(float(loss().detach()))
        tensor.data.view(-1)[place] += 1e-5
        assert float(gradient.view(-1)[place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-7)


def test_a_trained_network_of_a_learned_scale_is_one_of_the_usual_mapping(tmp_path) -> None:
    """The history's last validation is that of the network that the run gives back."""
    run = short(tmp_path / "run", device(), epochs=2, validation_every=1, **MOMENTS)
    rows = [row["validation_error_median"] for row in run.history(0)]
    state = run.checkpoint(0)
    assert state is not None
    network = run.network(0, run.devices())
    rows_held = np.sort(torch.randperm(120, generator=generator(0, "split"))[:24].numpy())
    images, labels = torch.tensor(DATA.train_images[rows_held]), torch.tensor(DATA.train_labels[rows_held])
    seed = f"0/0/validation/{state['best_epoch']}"
    found = chip_performance(network, images, labels, seed=seed, chips=range(4), power=False)
    assert float(np.median(1 - found.accuracy)) == pytest.approx(min(rows), abs=1e-12)


@pytest.mark.parametrize(
    ("tree", "options", "message"),
    [
        (device(), {"mapping": "offset"}, "mappings of pairs"),
        (device(), {"array": "rows=4,adc_bits=8,adc_range=array"}, "without line resistance, ADC"),
        (device(), {"scale": "automatic"}, "scale is 'automatic'; expected one of largest, learned"),
        (device(), {"variation": "some"}, "variation is 'some'; expected one of devices, moments"),
        (device(), {"scale": "learned", "mapping": "lowest:clip=3sigma"}, "whose clip sets the scale"),
        (device(), {"network": "tests.test_training_networks:make", "layers": None}, "for fully connected layers"),
    ],
)
def test_what_has_no_moments_is_refused_before_anything_is_written(tmp_path, tree, options, message) -> None:
    with pytest.raises(OptionError, match=message):
        short(tmp_path / "run", tree, **{"variation": "moments", **options})
    assert not (tmp_path / "run").exists()


def test_options_are_kept_in_the_record(tmp_path) -> None:
    run = short(tmp_path / "run", epochs=1, **MOMENTS)
    options = runs.open_run(run.path).options
    assert (options.variation, options.scale) == ("moments", "learned")
    assert Array.from_options(options.array) == Array()
    assert iv_node().attrs["form"] == "anchored"
