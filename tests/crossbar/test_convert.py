"""Conversion: what is chosen and kept, shared and tied weights, calibration, and what converted networks work with."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, Dataset

from calib import nn as memristive
from calib.crossbar.calibration import Magnitudes
from calib.crossbar.converters import Adc
from calib.errors import OptionError
from tests.simple_devices import device, everything, iv_node, range_only

IDEAL = memristive.Devices.from_model(range_only()).ideal()
REAL = memristive.Devices.from_model(everything())


def numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 1


def known(network: nn.Module) -> nn.Module:
    network.double()
    for seed, parameter in enumerate(network.parameters()):
        parameter.data = 0.5 * numbers(*parameter.shape, seed=20 + seed)
    return network


def cnn() -> nn.Module:
    """Return a small network for inputs (batch, 1, 6, 6)."""
    features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    return known(nn.Sequential(features, nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)))


def images(count: int = 4) -> torch.Tensor:
    return numbers(count, 1, 6, 6)


class Tagger(nn.Module):
    """Embedding, recurrent layer and output, whose weights are those of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.rnn = nn.LSTM(4, 4, batch_first=True)
        self.out = nn.Linear(4, 7)
        self.out.weight = self.embedding.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(self.embedding(words))[0])


@pytest.mark.parametrize("mapping", ["double", "lowest", "average", "offset"])
@pytest.mark.parametrize("bias", ["line", "digital"])
def test_a_converted_network_computes_what_it_did(mapping: str, bias: str) -> None:
    network = cnn().eval()
    converted = memristive.convert(network, IDEAL, mapping=mapping, bias=bias, calibrate=images())
    torch.testing.assert_close(converted(images()), network(images()), rtol=1e-7, atol=1e-9)
    assert isinstance(network[2], nn.Linear)
    assert [memristive.summary(converted)[k]["bias"] for k in (0, 5)] == [None, bias]
    assert not converted.training
    assert converted[0][1].running_mean.dtype == torch.float64


def test_a_network_of_words_is_converted() -> None:
    network = known(Tagger())
    words = torch.tensor([[0, 3, 6, 2], [5, 5, 1, 4]])
    converted = memristive.convert(network, IDEAL, calibrate=words)
    torch.testing.assert_close(converted(words), network(words), rtol=1e-6, atol=1e-8)
    (row,) = [row for row in memristive.summary(converted) if row["name"] == "out"]
    assert row["notes"] == ["weights that it shared with 'embedding' are copies of its own now"]


@pytest.mark.parametrize(
    ("choice", "converted"),
    [
        ({"include": "2"}, {"2"}),
        ({"include": ["0", "4"]}, {"0.0.crossbars.0", "4"}),
        ({"include": "0.*"}, {"0.0.crossbars.0"}),
        ({"include": nn.Linear}, {"2", "4"}),
        ({"include": nn.Linear, "exclude": ("4",)}, {"2"}),
        ({"exclude": nn.Conv2d}, {"2", "4"}),
        ({"exclude": "[24]"}, {"0.0.crossbars.0"}),
        ({"include": "*", "exclude": [nn.Conv2d, "2"]}, {"4"}),
        ({"include": nn.Sequential}, {"0.0.crossbars.0", "2", "4"}),
    ],
)
def test_layers_are_chosen_by_name_and_type(choice: dict, converted: set[str]) -> None:
    network = memristive.convert(cnn(), IDEAL, **choice)
    assert {
        name for name, part in network.named_modules() if isinstance(part, memristive.MemristiveLinear)
    } == converted


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"include": "fc*"}, r"include='fc\*' matches no layer.*'0.0' \(Conv2d\), '2' \(Linear\), '4' \(Linear\)"),
        ({"include": nn.LSTM}, "include=LSTM matches no layer"),
        ({"include": "0.1"}, "include='0.1' matches no layer that could be memristive"),
        ({"exclude": ["2", "head", nn.GRU]}, "exclude='head' matches nothing; exclude=GRU matches nothing"),
        ({"exclude": [nn.Linear, nn.Conv2d]}, "everything that could be memristive is excluded"),
        ({"include": []}, "include is empty; the layers that could be are '0.0'"),
        ({"bias": "none"}, "bias is 'none'; expected 'line' or 'digital'"),
        ({"mapping": "triple"}, "no mapping 'triple'"),
        ({"calibrate": 3}, "batches to calibrate with are a int"),
    ],
)
def test_a_choice_that_matches_nothing_is_refused(choice: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        memristive.convert(cnn(), IDEAL, **choice)


def test_a_network_without_convertible_layers_is_refused() -> None:
    with pytest.raises(OptionError, match="Sequential has no linear layer or other one that could be memristive"):
        memristive.convert(nn.Sequential(nn.Embedding(3, 2), nn.ReLU()), IDEAL)


def test_a_layer_in_several_places_stays_one() -> None:
    layer = nn.Linear(3, 3)
    network = known(nn.Sequential(layer, nn.Tanh(), layer, nn.Sequential(layer)))
    converted = memristive.convert(network, REAL)
    assert converted[0] is converted[2] is converted[3][0]
    assert len(list(converted.parameters())) == 1
    with pytest.raises(OptionError, match="everything that could be memristive is excluded"):
        memristive.convert(network, REAL, exclude="3.0")
    ideal = memristive.convert(network, IDEAL, calibrate=numbers(2, 3))
    torch.testing.assert_close(ideal(numbers(2, 3)), network(numbers(2, 3)), rtol=1e-7, atol=1e-9)


def test_layers_of_the_same_weights_share_them_on_crossbars_of_their_own() -> None:
    network = known(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)))
    network[2].weight, network[2].bias = network[0].weight, network[0].bias
    converted = memristive.convert(network, REAL)
    assert converted[0] is not converted[2]
    assert converted[0].weight is converted[2].weight
    x = 0.3 * numbers(2, 3)
    assert not torch.allclose(converted[0](x), converted[2](x))
    notes = [row["notes"] for row in memristive.summary(converted) if row["place"] == "memristive"]
    assert notes == [[f"shares its weights with '{other}', on a crossbar of its own"] for other in (2, 0)]
    assert copy.deepcopy(converted)[0].weight is not converted[0].weight


def test_weights_that_are_partly_shared_become_copies() -> None:
    network = known(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    network[1].weight = network[0].weight
    converted = memristive.convert(network, IDEAL, calibrate=numbers(2, 3))
    torch.testing.assert_close(converted(numbers(2, 3)), network(numbers(2, 3)))
    notes = [row["notes"] for row in memristive.summary(converted)]
    assert notes == [[f"weights that it shared with '{k}' are copies of its own now"] for k in (1, 0)]


def test_hooks_modes_and_frozen_weights_are_kept() -> None:
    network = cnn()
    network[4].eval().requires_grad_(False)
    calls: list[str] = []
    network[4].register_forward_hook(lambda layer, x, y: calls.append("forward"))
    network[4].register_forward_pre_hook(lambda layer, x: calls.append("before"))
    network[4].register_forward_hook(lambda layer, x, named, y: y + 100, with_kwargs=True)
    network[2].register_full_backward_hook(lambda layer, by_input, by_output: calls.append("backward"))
    network[3].register_forward_hook(lambda layer, x, y: calls.append("kept"))
    converted = memristive.convert(network, IDEAL, calibrate=images())
    calls.clear()
    y = converted(images())
    assert calls == ["kept", "before", "forward"]
    assert float(y.detach().min()) > 50
    y.sum().backward()
    assert calls[-1] == "backward"
    assert (converted[2].training, converted[4].training) == (True, False)
    assert [p.requires_grad for p in converted[4].parameters()] == [False]


@pytest.mark.parametrize("norm", ["weight norm", "spectral norm", "old weight norm", "old spectral norm", "pruning"])
def test_norms_are_replaced_by_the_weights_that_they_give(norm: str) -> None:
    network = cnn()
    layer = network[2]
    if norm == "weight norm":
        parametrizations.weight_norm(layer)
    elif norm == "spectral norm":
        parametrizations.spectral_norm(layer)
    elif norm == "old weight norm":
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(layer)
    elif norm == "old spectral norm":
        nn.utils.spectral_norm(layer)
    else:
        prune.l1_unstructured(layer, "weight", 0.5)
    network.eval()
    expected = network(images())
    converted = memristive.convert(network, IDEAL, calibrate=images())
    torch.testing.assert_close(converted(images()), expected, rtol=1e-7, atol=1e-9)
    (row,) = [row for row in memristive.summary(converted) if row["name"] == "2"]
    assert len(row["notes"]) == 1
    assert "weight" in row["notes"][0]
    torch.testing.assert_close(network(images()), expected)


def test_weights_that_cannot_be_taken_over_are_refused() -> None:
    with pytest.raises(OptionError, match="layer '0' has no weights yet; pass a batch through the network"):
        memristive.convert(nn.Sequential(nn.LazyLinear(3)), IDEAL)
    with pytest.raises(OptionError, match=r"weight of the layer '' is of torch.complex64"):
        memristive.convert(nn.Linear(2, 2, dtype=torch.complex64), IDEAL)
    computed = nn.Sequential(nn.Linear(2, 2))
    del computed[0].weight
    computed[0].weight = torch.ones(2, 2)
    with pytest.raises(OptionError, match="weight of the layer '0' is computed by something else"):
        memristive.convert(computed, IDEAL)


def test_layers_that_compute_otherwise_stay() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    network = memristive.convert(nn.Sequential(nn.Linear(2, 2), Doubled(2, 2)), IDEAL)
    rows = memristive.summary(network)
    assert [row["place"] for row in rows] == ["memristive", "digital"]
    assert rows[1]["reason"] == "computes in a way of its own"


def test_devices_of_a_converted_network_are_replaced() -> None:
    network = memristive.convert(cnn(), IDEAL, calibrate=images())
    array = memristive.Array(rows=16, columns=8)
    again = memristive.convert(network, REAL, array=array)
    assert all(layer.devices is REAL and layer.array is array for layer in memristive.memristive_layers(again))
    assert all(layer.devices is IDEAL for layer in memristive.memristive_layers(network))
    torch.testing.assert_close(again.state_dict()["4.weight"], network.state_dict()["4.weight"])
    assert float(again[2].input_range) == float(network[2].input_range) != 1.0


# calibration


def test_ranges_are_the_largest_inputs() -> None:
    network = cnn().eval()
    converted = memristive.convert(network, IDEAL)
    batches = [images(2), 3 * images(3)]
    found = memristive.calibrate(converted, ((batch,) for batch in batches))
    assert set(found) == {"0.0.crossbars.0", "2", "4"}
    assert found["0.0.crossbars.0"] == pytest.approx(float(batches[1].abs().max()))
    hidden = [network[:4](batch).detach().abs().max() for batch in batches]
    assert found["4"] == pytest.approx(float(max(hidden)))
    for name, layer in converted.named_modules():
        if isinstance(layer, memristive.MemristiveLinear):
            assert float(layer.input_range) == pytest.approx(found[name])
    torch.testing.assert_close(converted(batches[1]), network(batches[1]), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("quantile", [0.001, 0.5, 0.9, 0.999])
def test_quantiles_are_those_of_all_inputs(quantile: float) -> None:
    found = Magnitudes()
    parts = [scale * numbers(5000, seed=seed) for seed, scale in enumerate((0.1, 3.0, 1.0, 50.0, 20.0))]
    for part in parts:
        found.add(part)
    sizes = torch.cat(parts).abs().sort().values
    exact = float(sizes[math.ceil(quantile * len(sizes)) - 1])
    assert exact - 1e-12 <= found.quantile(quantile) <= exact + 50 * 2.0**-13
    layer = memristive.convert(nn.Linear(5, 2).double(), IDEAL)
    memristive.calibrate(layer, [part.view(-1, 5) for part in parts], quantile=quantile)
    assert float(layer.input_range) == pytest.approx(found.quantile(quantile))


def test_calibration_leaves_the_network_as_it_was() -> None:
    converted = memristive.convert(cnn(), IDEAL)
    converted[2].eval()
    before = copy.deepcopy(converted.state_dict())
    memristive.calibrate(converted, images())
    assert (converted.training, converted[2].training) == (True, False)
    assert torch.equal(before["0.1.running_mean"], converted.state_dict()["0.1.running_mean"])
    assert torch.equal(before["0.0.crossbars.0.weight"], converted.state_dict()["0.0.crossbars.0.weight"])
    assert all("forward" not in part.__dict__ for part in converted.modules())


def test_a_batch_may_be_arguments_by_name_or_place() -> None:
    layer = memristive.convert(Two().double(), IDEAL)
    x, y = numbers(2, 3), 4 * numbers(2, 3)
    for batches in ((x, y), [(x, y)], {"x": x, "y": y}, [{"x": x, "y": y}], iter([[x, y]])):
        found = memristive.calibrate(layer, batches)
        assert found["second"] == pytest.approx(float(y.abs().max()))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.first(x) + self.second(y)


def test_layers_that_nothing_reaches_keep_their_range() -> None:
    layer = memristive.convert(Two().double(), IDEAL)
    found = memristive.calibrate(layer, (0 * numbers(2, 3), numbers(2, 3)))
    assert set(found) == {"second"}
    assert float(layer.unused.input_range) == float(layer.first.input_range) == 1.0


def test_the_range_of_an_adc_comes_from_the_currents() -> None:
    """With ideal devices the differences of currents are k_V k_G y / s: their largest is the range."""
    array = memristive.Array(adc=Adc(8), input_mode="voltage")
    linear = known(nn.Linear(5, 3))
    layer = memristive.convert(linear, IDEAL, array=array)
    x = numbers(20, 5)
    with pytest.raises(OptionError, match="no data were seen; call calib.nn.calibrate"):
        layer(x)
    memristive.calibrate(layer, iter([x[:10], x[10:]]))
    _, k_g = layer.mapping.conductances(layer.weight.detach(), IDEAL.g_off, IDEAL.g_on)
    largest = linear(x).detach().abs().max() * IDEAL.input_voltage * k_g / layer.input_range
    torch.testing.assert_close(layer.adc_range, largest[None])
    assert layer.reading.adc_currents is None
    level = float(linear(x).detach().abs().max()) / 127
    torch.testing.assert_close(layer(x), linear(x), rtol=0, atol=0.51 * level)


def test_blocks_of_word_lines_have_ranges_of_their_own() -> None:
    array = memristive.Array(rows=4, columns=8, adc=Adc(8, quantile=0.9))
    network = memristive.convert(cnn().eval(), REAL, array=array, calibrate=images())
    layer = network[2]
    assert layer.adc_range.shape == (10,)
    assert len(set(layer.adc_range.tolist())) > 5
    assert float(layer.adc_range.min()) > 0
    assert torch.isfinite(network(images())).all()
    other = memristive.convert(cnn(), REAL, array=array)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other[2].adc_range, layer.adc_range)


def test_calibration_without_what_it_needs_is_refused() -> None:
    layer = memristive.convert(nn.Linear(3, 2).double(), IDEAL)
    with pytest.raises(OptionError, match="quantile of inputs is 0; expected more than 0"):
        memristive.calibrate(layer, numbers(2, 3), quantile=0)
    with pytest.raises(OptionError, match="no memristive layer to calibrate; convert it first"):
        memristive.calibrate(nn.Linear(3, 2), numbers(2, 3))
    with pytest.raises(OptionError, match="there is no batch to calibrate with"):
        memristive.calibrate(layer, [])
    with pytest.raises(OptionError, match="a batch to calibrate with is a str"):
        memristive.calibrate(layer, ["x"])
    with pytest.raises(OptionError, match="inputs of the layer '' are not finite"):
        memristive.calibrate(layer, numbers(2, 3) / 0)
    assert "forward" not in layer.__dict__


# what converted networks work with


@pytest.fixture
def converted() -> nn.Module:
    network = known(nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), Last()))
    return memristive.convert(network, REAL, calibrate=numbers(4, 2, 5))


class Last(nn.Module):
    """A recurrent layer and attention over (batch, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x.unflatten(-1, (4, 3)))
        y, _ = self.attention(y, y, y)
        return self.out(y[:, -1])


def ideal(network: nn.Module) -> nn.Module:
    return memristive.convert(network, IDEAL)


def test_a_state_dict_is_saved_and_loaded(converted: nn.Module) -> None:
    file = io.BytesIO()
    torch.save(converted.state_dict(), file)
    file.seek(0)
    network = known(nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), Last()))
    other = memristive.convert(network, REAL)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = numbers(4, 2, 5)
    torch.testing.assert_close(ideal(other)(x), ideal(converted)(x))
    assert float(other[0].crossbars[0].input_range) == float(converted[0].crossbars[0].input_range) != 1.0


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_it_trains(converted: nn.Module, optimizer: type) -> None:
    """Gradients through drawn devices are finite; without their noise every optimiser lowers the loss."""
    x = numbers(16, 2, 5)
    target = (x.sum((1, 2)) > 0).long()
    mild = memristive.convert(converted, memristive.Devices.from_model(device(iv=iv_node(spread=0.02))))
    for index, layer in enumerate(memristive.memristive_layers(mild)):
        layer.generator = torch.Generator().manual_seed(index)
    nn.functional.cross_entropy(mild(x), target).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in mild.parameters())
    network = ideal(converted)
    steps = optimizer(network.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        steps.zero_grad()
        loss = nn.functional.cross_entropy(network(x), target)
        loss.backward()
        steps.step()
        for layer in memristive.memristive_layers(network):
            layer.project()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.01


def test_networks_that_were_trained_with_read_noise_can_be_copied() -> None:
    """Nothing of the last pass, whose tensors belong to a graph, stays in a layer."""
    network = memristive.convert(nn.Linear(5, 3), "xiao2025-multilevel", mapping="lowest")
    layer = memristive.memristive_layers(network)[0]
    assert layer.devices.read is not None
    network(torch.rand(4, 5)).square().mean().backward()
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), memristive.convert(network, "ta-hfo2")):
        torch.testing.assert_close(memristive.memristive_layers(other)[0].weight, layer.weight)
        other(torch.rand(4, 5)).square().mean().backward()


def test_copies_are_equal_and_apart(converted: nn.Module) -> None:
    for other in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        x = numbers(4, 2, 5)
        torch.testing.assert_close(other(x), copy.deepcopy(converted)(x))  # the same devices are drawn
        with torch.no_grad():
            other[3].out.weight.zero_()
        assert float(converted[3].out.weight.detach().abs().max()) > 0


class Passed(Dataset):
    """Outputs of a network, computed where the data are loaded."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        with torch.no_grad():
            return self.network(numbers(4, 2, 5)[index : index + 1])[0]


def test_it_works_in_a_worker_of_a_loader(converted: nn.Module) -> None:
    network = ideal(converted)
    (batch,) = DataLoader(Passed(network), batch_size=4, num_workers=1, multiprocessing_context="spawn")
    torch.testing.assert_close(batch, network(numbers(4, 2, 5)).detach())


def test_autocast_is_near_single_precision(converted: nn.Module) -> None:
    network = ideal(converted).float()
    x = numbers(4, 2, 5, dtype=torch.float32)
    expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(x)
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = copy.deepcopy(converted).float()(x).float().square().mean()
    loss.backward()
    assert torch.isfinite(loss)


def test_weights_may_come_from_outside(converted: nn.Module) -> None:
    network = ideal(converted)
    x = numbers(4, 2, 5)
    doubled = {name: 2 * p.detach() for name, p in network.named_parameters() if name.startswith("3.out")}
    torch.testing.assert_close(torch.func.functional_call(network, doubled, (x,)), 2 * network(x))


def test_inputs_and_weights_are_mapped(converted: nn.Module) -> None:
    """torch.func.vmap over inputs, over stacked weights, and over chips by their drawn devices' weights."""
    network = ideal(converted).eval()
    x = numbers(3, 4, 2, 5)
    found = torch.func.vmap(network)(x)
    torch.testing.assert_close(found, torch.stack([network(part) for part in x]))
    weights = {
        name: torch.stack([factor * p.detach() for factor in (0.5, 1.0, 1.5)]) for name, p in network.named_parameters()
    }

    def call(one: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(network, one, (x[0],))

    expected = torch.stack([call({name: w[k] for name, w in weights.items()}) for k in range(3)])
    torch.testing.assert_close(torch.func.vmap(call)(weights), expected)


def test_chips_are_stacked_and_apart(converted: nn.Module) -> None:
    """A chip of a converted network is the same whatever chips and inputs it is computed with."""
    converted.eval()
    x = numbers(4, 2, 5)
    with memristive.held_chips(converted, 7, range(4)) as chips:
        together = chips(x)
    assert together.shape == (4, 4, 3)
    assert not torch.allclose(together[0], together[1])
    with memristive.held_chips(converted, 7, [2]) as chips:
        torch.testing.assert_close(chips(x[:2])[0], together[2, :2])


def test_gradients_are_mapped(converted: nn.Module) -> None:
    network = ideal(converted).eval()
    x = numbers(3, 1, 2, 5)
    own = dict(network.named_parameters())

    def loss(weights: dict[str, torch.Tensor], one: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(network, weights, (one,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(own, x)
    for k in range(3):
        gradients = torch.autograd.grad(loss(own, x[k]), list(own.values()))
        for name, gradient in zip(own, gradients, strict=True):
            torch.testing.assert_close(found[name][k], gradient, rtol=1e-7, atol=1e-10)


@pytest.mark.gpu
def test_it_moves_to_a_gpu(converted: nn.Module) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    x = numbers(4, 2, 5)
    moved = ideal(converted).to("cuda")
    torch.testing.assert_close(moved(x.cuda()).cpu(), ideal(converted)(x))
    there = memristive.convert(known(nn.Linear(5, 3)).cuda(), REAL)
    y = there(x[0].cuda())
    y.sum().backward()
    assert y.device.type == "cuda"
    assert torch.isfinite(there.weight.grad).all()
