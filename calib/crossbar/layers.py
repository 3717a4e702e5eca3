"""Layers whose weights are conductances of memristive devices."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from calib.crossbar import drawing, tile_outputs
from calib.crossbar.array import Array, Tile
from calib.crossbar.devices import Devices
from calib.crossbar.encoding import Encoding, encode
from calib.crossbar.functions import product, transforms_active
from calib.crossbar.mapping import Mapping
from calib.crossbar.mapping import mapping as mapping_of
from calib.crossbar.multiply import Collocation
from calib.crossbar.nonlinear_lines import Convergence
from calib.crossbar.read_currents import ReadState
from calib.errors import OptionError

BIASES = ("line", "digital")
"""What biases are: devices on a word line of their own, or numbers that are added after the converters."""
_MARGIN = 1e-5  # of the full scale: rounding of inputs that lie at it


@dataclass(frozen=True)
class Encoded:
    """Inputs of a layer, see `MemristiveLinear.encode`.

    Attributes
    ----------
    basis : (batch, K word_line) basis functions [V].
    voltage : (batch, word_line) [V], where the power is to be known.
    """

    basis: torch.Tensor
    voltage: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.basis)

    def __getitem__(self, rows: torch.Tensor | slice) -> "Encoded":
        return Encoded(self.basis[rows], None if self.voltage is None else self.voltage[rows])


class MemristiveLinear(nn.Module):
    """A fully connected layer on crossbar arrays of memristive devices: y = s sum_g f_g I_g / (k_V k_G).

    Inputs become voltages V = k_V x / s, s the full scale of |x| (`input_range`); the bias is one more word line at
    full scale, or digital. I_g are the currents of the bit lines of group g, f_g the groups' factors (1 and -1 for a
    pair). Every forward pass draws new devices, unless the layer is given drawn ones (`held_chips`).

    Inputs beyond the full scale are an error as long as it is 1, as it is at first; a calibrated range
    (`set_input_range`) clips them, as a driver does.

    Inputs of both signs are applied as the array's input mode says: 'two-phase' reads positive and negative inputs
    after one another and subtracts, 'voltage' applies voltages of both signs, 'offset' applies k_V (1 + x / s) / 2 and
    subtracts the currents at k_V / 2. For odd laws the first two agree where a product gives the currents.

    Parameters
    ----------
    in_features, out_features : word lines without the bias, outputs.
    devices : what the layer is made of.
    mapping : how weights become conductances, see `calib.crossbar.mapping`.
    array : size of tiles, lines and converters.
    bias : 'line', 'digital' or None.
    first : generator of the first weights.
    """

    input_range: torch.Tensor
    clips: torch.Tensor
    adc_range: torch.Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        devices: Devices,
        *,
        mapping: str | Mapping = "double",
        array: Array | None = None,
        bias: str | None = "line",
        first: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if bias not in (*BIASES, None):
            raise OptionError(f"the bias is '{bias}'; expected 'line', 'digital' or None")
        self.in_features, self.out_features = in_features, out_features
        self.mapping = mapping_of(mapping)
        self.array = Array() if array is None else array
        self.bias_on_line = bias == "line"
        self.devices = devices
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        shape = self.mapping.weight_shape(in_features, out_features, self.bias_on_line)
        self.weight = nn.Parameter(torch.empty(shape, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype)) if bias == "digital" else None
        self.mapping.initialise(self.weight, first, self.bias_on_line)
        blocks = len({tile.row_block for tile in self.tiles})
        self.register_buffer("input_range", torch.ones((), dtype=dtype))
        self.register_buffer("clips", torch.zeros((), dtype=torch.bool))
        self.register_buffer("adc_range", torch.zeros(blocks, dtype=dtype))
        self._clips = self.adc_is_calibrated = False
        self.drawn: drawing.Drawn | None = None
        self.read_states: list[ReadState] = []
        self.reading = Reading()
        self.wants_power = False  # of new devices too, with its gradient; `reading.measures` then gives it

    def extra_repr(self) -> str:
        """Return what the layer's line shows."""
        return f"{self.in_features}, {self.out_features}, mapping={self.mapping.text}, devices={self.devices.name}"

    @property
    def devices(self) -> Devices:
        """What the layer is made of."""
        return self._devices

    @devices.setter
    def devices(self, devices: Devices) -> None:
        self._devices = devices
        devices.plan(self.word_lines)  # chosen now: a pass may be inside a transform that allows no draws
        _ = devices.full_current
        self.encoding = self._encoding()

    @property
    def word_lines(self) -> int:
        """Word lines, with that of the bias."""
        return self.in_features + self.bias_on_line

    @property
    def plan(self) -> Collocation:
        """Nodes on which the law is evaluated."""
        return self.devices.plan(self.word_lines)

    @property
    def tiles(self) -> list[Tile]:
        """Tiles of the array."""
        return self.array.tiles(self.word_lines, self.mapping.bit_lines(self.out_features), self.mapping.groups)

    @property
    def by_product(self) -> bool:
        """Whether a matrix product gives the outputs."""
        return self.devices.read is None and not set(self.array.effects) - {"DAC"}

    def _encoding(self) -> Encoding | None:
        """Return how inputs are encoded in one step, None where it takes several."""
        plan = self.plan
        if plan.exponent is None or plan.power is None or plan.count == 1 or not (self.one_phase and plan.law.odd):
            return None
        return Encoding(plan.exponential(None), plan.power, self.devices.input_voltage, self.bias_on_line)

    def stream(self) -> torch.Generator:
        """Return the generator that devices are drawn from, on the device of the weights."""
        if self.generator.device != self.weight.device:
            seed = self.generator.initial_seed()
            self.generator = torch.Generator(self.weight.device).manual_seed(seed)
        return self.generator

    def project(self) -> None:
        """Put weights back into their range; call it after each step of an optimiser."""
        self.mapping.project(self.weight)

    @torch.no_grad()
    def set_input_range(self, full_scale: float) -> None:
        """Set the full scale of |x|, from data; inputs beyond are clipped from now on.

        The weights of the bias line, which is at full scale, are scaled so that biases keep their values.

        Raises
        ------
        OptionError
            When it is not positive.
        """
        if not 0 < full_scale < float("inf"):
            raise OptionError(f"the full scale of a layer's inputs is {full_scale}; expected more than 0, and finite")
        if self.bias_on_line:
            self.weight[..., -1, :] *= self.input_range / full_scale
        self.input_range.fill_(full_scale)
        self.clips.fill_(True)
        self._clips = True

    @torch.no_grad()
    def set_adc_range(self, full_scale: torch.Tensor) -> None:
        """Set the full scale [A] of the converters of each block of word lines, from data."""
        self.adc_range.copy_(full_scale)
        self.adc_is_calibrated = True

    def set_array(self, array: Array) -> None:
        """Put the layer on another array, whose converters are not calibrated yet."""
        self.array = array
        blocks = len({tile.row_block for tile in self.tiles})
        self.adc_range = self.weight.detach().new_zeros(blocks)
        self.adc_is_calibrated = False
        self.encoding = self._encoding()

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in ("input_range", "clips", "adc_range"):  # which older checkpoints do not have
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._clips = bool(self.clips)
        self.adc_is_calibrated = bool((self.adc_range > 0).all())

    def __getstate__(self) -> dict:
        """Return the attributes; the generator as bytes, because its tensor does not outlive the start of a worker."""
        known = str(self.generator.device), self.generator.get_state().numpy().tobytes()
        return {**self.__dict__, "generator": known}

    def __setstate__(self, state: dict) -> None:
        place, known = state["generator"]
        generator = torch.Generator(place)
        generator.set_state(torch.frombuffer(bytearray(known), dtype=torch.uint8))
        super().__setstate__({**state, "generator": generator})

    def forward(self, x: torch.Tensor | Encoded) -> torch.Tensor:
        """Return (..., out) of inputs (..., in)."""
        kind = self.weight.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self._outputs(x.float() if isinstance(x, torch.Tensor) else x)
        return self._outputs(x)

    def encode(self, x: torch.Tensor, power: bool = False) -> Encoded:
        """Return inputs (batch, in) as basis functions, to be computed once for many passes.

        Parameters
        ----------
        power : whether the power of those passes is to be known.

        Raises
        ------
        OptionError
            When the array's outputs are not those of a product, an input is beyond the full scale, or the power of
            inputs that are read in several phases is wanted.
        """
        if not self.by_product:
            raise OptionError("inputs can be encoded once only for layers without line resistance, ADC and read noise")
        if power and not self.one_phase:
            raise OptionError(f"the power of inputs in the mode '{self.array.input_mode}' needs the inputs themselves")
        scaled = self._scaled(x)
        voltage = self._lines(scaled) * self.devices.input_voltage if power else None
        return Encoded(self._basis(scaled), voltage)

    def _outputs(self, x: torch.Tensor | Encoded) -> torch.Tensor:
        drawn = self.drawn if self.drawn is not None else drawing.draw([self])[0]
        self.reading.weights = None
        if isinstance(x, Encoded):
            if self.reading.measures and x.voltage is not None:
                self._note(x.basis.unflatten(-1, (self.plan.size, -1)), x.voltage)
            return self.decoded(self._product(x.basis, drawn), drawn)
        scaled = self._scaled(x if x.dim() == 2 else x.reshape(-1, x.shape[-1]))
        if self.by_product:
            y = self._product(self._basis(scaled), drawn)
        else:
            y = tile_outputs.outputs(self, self._lines(scaled), drawn)
        y = self.decoded(y, drawn)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], self.out_features)

    def decoded(self, y: torch.Tensor, drawn: drawing.Drawn) -> torch.Tensor:
        """Return outputs of currents over k_V k_G."""
        if "compensation" in drawn:
            y = y * drawn["compensation"]
        if self._clips:
            y = y * self.input_range
        return y if self.bias is None else y + self.bias

    def _product(self, basis: torch.Tensor, drawn: drawing.Drawn) -> torch.Tensor:
        if self.reading.measures:
            self.reading.take_power(drawn["power"])
        y = product(basis, drawn["coefficients"])
        return self.mapping.combine(y.unsqueeze(-2)) if self.mapping.reference else y

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Return inputs (batch, in) as fractions of the full scale, through the DAC."""
        if x.shape[-1] != self.in_features:
            raise OptionError(f"a layer of {self.in_features} inputs was given {x.shape[-1]}; check the layers' sizes")
        return self.fractions(x)

    def fractions(self, x: torch.Tensor) -> torch.Tensor:
        """Return inputs of any shape as fractions of the full scale, clipped or checked, through the DAC."""
        x = (x / self.input_range).clamp(-1.0, 1.0) if self._clips else _checked(x)
        return x if self.array.dac is None else self._quantised(x)

    def _lines(self, x: torch.Tensor) -> torch.Tensor:
        """Return the fractions of the full scale (batch, word_line) of all word lines, that of the bias included."""
        return functional.pad(x, (0, 1), value=1.0) if self.bias_on_line else x

    def _quantised(self, x: torch.Tensor) -> torch.Tensor:
        assert self.array.dac is not None
        if self.array.input_mode == "two-phase":
            return self.array.dac.quantise(x.clamp(min=0)) - self.array.dac.quantise((-x).clamp(min=0))
        if self.array.input_mode == "offset":
            return 2 * self.array.dac.quantise(0.5 * (1 + x)) - 1
        return self.array.dac.quantise(x)

    def phases(self, x: torch.Tensor) -> list[tuple[float, torch.Tensor]]:
        """Return factors and voltages (batch, word_line) [V] of the readings that make up an output."""
        k_v = self.devices.input_voltage
        if self.array.input_mode == "voltage":
            return [(1.0, k_v * x)]
        if self.array.input_mode == "offset":
            return [(2.0, (0.5 * k_v) * (1 + x)), (-2.0, torch.full_like(x, 0.5 * k_v))]
        return [(1.0, k_v * x.clamp(min=0)), (-1.0, k_v * torch.relu(-x))]  # at 0 one phase has the gradient

    def _basis(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum over phases of factor basis (batch, K word_line) [V] of inputs (batch, in)."""
        if self.encoding is None:
            return self._sum_over_phases(self._lines(x))
        basis = encode(x, self.encoding)
        if self.reading.measures:
            self._note(basis, self._lines(x) * self.devices.input_voltage)
        return basis.flatten(-2)

    @property
    def one_phase(self) -> bool:
        """Whether one reading of voltages of both signs gives what all phases give."""
        return self.array.input_mode == "voltage" or (self.array.input_mode == "two-phase" and self.plan.law.odd)

    def _sum_over_phases(self, x: torch.Tensor) -> torch.Tensor:
        if self.one_phase:
            return self.phase_basis(x * self.devices.input_voltage)
        first, second = (factor * self.phase_basis(voltage) for factor, voltage in self.phases(x))
        return first + second

    def value_basis(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum over phases of factor basis (batch, K, value) [V] of fractions of the full scale."""
        if self.encoding is not None:
            return encode(x, replace(self.encoding, bias=False))
        return self._sum_over_phases(x).unflatten(-1, (self.plan.size, -1))

    def phase_basis(self, voltage: torch.Tensor) -> torch.Tensor:
        """Return the basis functions (batch, K word_line) [V] of one reading, and note V B for its power."""
        basis = self.plan.basis(voltage)
        if self.reading.measures:
            self._note(basis, voltage)
        return basis.flatten(-2)

    def _note(self, basis: torch.Tensor, voltage: torch.Tensor) -> None:
        """Note V B, from basis (batch, K, word_line) and voltage (batch, word_line), for the power of one reading."""
        with torch.set_grad_enabled(self.wants_power and torch.is_grad_enabled()):
            weights = (basis * voltage.unsqueeze(-2)).sum(0).flatten()
        known = self.reading.weights
        self.reading.weights = weights if known is None else known + weights


@dataclass
class Reading:
    """What a layer's readings are, and what is measured of them.

    Attributes
    ----------
    first_image, images : index of the first of the inputs of a pass, and how many there are; noise of readings follows
        from the index. Without `images` the rows of the inputs are counted.
    measures : whether the power is measured.
    power : [W], summed over all readings.
    weights : (K word_line,) [V^2] sum of V B over the rows of a pass.
    adc_currents : for each block of word lines the currents [A] that the converters see, collected to calibrate them;
        None where they convert.
    convergence : largest residual and number of steps of nonlinear devices on lines with resistance, since
        `tile_outputs.take_residual`.
    """

    first_image: int = 0
    images: int | None = None
    measures: bool = False
    power: torch.Tensor | float = 0.0
    weights: torch.Tensor | None = None
    adc_currents: list[list[torch.Tensor]] | None = None
    convergence: Convergence | None = None

    def add(self, power: torch.Tensor) -> None:
        """Add the power [W] of a pass."""
        self.power = self.power + power

    def take_power(self, coefficients: torch.Tensor) -> None:
        """Add the power of the voltages that were noted, with `coefficients` (K word_line,) [S] of the devices."""
        if self.weights is not None:
            self.add((self.weights * coefficients).sum())
        self.weights = None

    def note(self, convergence: Convergence) -> None:
        """Keep how the last solution of an array with line resistance was reached."""
        self.convergence = convergence

    def image_indices(self, rows: int, device: torch.device) -> torch.Tensor:
        """Return an index for each of the rows of a pass; an image may have several, which follow one another."""
        each = 1 if self.images is None else max(rows // self.images, 1)
        return torch.arange(rows, device=device) + self.first_image * each


def _checked(x: torch.Tensor) -> torch.Tensor:
    """Return x, checked to lie in [-1, 1]; over chips that are mapped all at once."""
    if transforms_active():
        return _Checked.apply(x)  # type: ignore[return-value]
    _check_range(x.detach())
    return x


def _check_range(x: torch.Tensor) -> None:
    low, high = torch.aminmax(x) if x.numel() else (x.new_zeros(()), x.new_zeros(()))
    if not (float(low) >= -1.0 - _MARGIN and float(high) <= 1.0 + _MARGIN):
        raise OptionError(
            f"inputs of a memristive layer lie between {float(low):g} and {float(high):g}; expected -1 to 1, which "
            "become voltages; scale the data, cap the activation before the layer, or calibrate the layer's input "
            "range (calib.nn.calibrate)"
        )


class _Checked(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        _check_range(x)
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0]

    @staticmethod
    def vmap(info, in_dims, x):
        return _checked(x), in_dims[0]


def memristive_layers(module: nn.Module) -> list[MemristiveLinear]:
    """Return the memristive layers of a module in the order in which it lists them."""
    return [layer for layer in module.modules() if isinstance(layer, MemristiveLinear)]
