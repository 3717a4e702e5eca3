"""Currents of an array whose word and bit lines have resistance: the exact solution of Kirchhoff's laws.

The array has m word lines and n bit lines; a device of conductance G_ij joins node j of word line i to node i of bit
line j. Neighbouring nodes of a line are one segment apart. A word line is driven at its end before the first bit line
(or at both ends) through one segment and the driver's resistance; a bit line ends after the last word line, through one
segment and the sense resistance, on virtual ground.

Word line i, seen from its n devices, is a multiport: with A_i its tridiagonal nodal matrix, devices included, and
D_i = diag(G_i), the currents of its devices into bit lines at voltages u are c_i V_i - S_i u,

    S_i = D_i - D_i A_i^-1 D_i,    c_i = S_i 1.

Row by row, the part of the array above bit-line node i is a Norton equivalent of admittance Y_i and short-circuit
currents J_i (one per bit line). A segment r in series and the next word line turn it into

    Y_(i+1) = S_(i+1) + Y_i (1 + r Y_i)^-1,    J_(i+1) = c_(i+1) V_(i+1) + (1 + r Y_i)^-1 J_i,

and after the last segment and the sense resistance J is the output. No step subtracts numbers that are close, so
resistances of zero, on either side, are exact, and so is everything between zero and lines that let nothing through.
Carrying J for every input gives the transfer matrix T, I = V T, of all inputs at once in m dense factorisations of
n x n. Because the network is reciprocal, an array with fewer word lines than bit lines is solved transposed.
"""

from dataclasses import dataclass

import torch

from calib.errors import OptionError

_DIRECT = {torch.float64: 1e-3, torch.float32: 1e-1}
"""r |Y| from which on Y (1 + r Y)^-1 = (1 - (1 + r Y)^-1) / r loses few digits; below, a product is taken."""


@dataclass(frozen=True)
class Lines:
    """Resistances of an array's lines, all in Ohm.

    Attributes
    ----------
    word_segment, bit_segment : of a word or bit line between neighbouring devices, and before the first one.
    driver : output resistance of what drives a word line.
    sense : input resistance of what a bit line ends in.
    both_ends : whether word lines are driven at both ends, by the same voltage through the same resistances.
    """

    word_segment: float = 0.0
    bit_segment: float = 0.0
    driver: float = 0.0
    sense: float = 0.0
    both_ends: bool = False

    def __post_init__(self) -> None:
        for name in ("word_segment", "bit_segment", "driver", "sense"):
            value = getattr(self, name)
            if not (value >= 0 and value < float("inf")):
                raise OptionError(f"the resistance {name} of the lines is {value} Ohm; expected 0 or more, and finite")

    @property
    def ideal(self) -> bool:
        """Whether all resistances are zero."""
        return not (self.word_segment or self.bit_segment or self.driver or self.sense)


def transfer_matrix(conductance: torch.Tensor, lines: Lines) -> torch.Tensor:
    """Return T [S] with I = V @ T, for arrays of `conductance` [S], both (..., word_line, bit_line).

    Arrays along the leading dimensions are solved together. Not differentiable; `currents` is.
    """
    g = conductance.detach()
    if lines.ideal:
        return g.clone()
    m, n = g.shape[-2:]
    if m < n and not lines.both_ends:
        swapped = Lines(lines.bit_segment, lines.word_segment, lines.sense, lines.driver)
        turned = g.flip(-2, -1).transpose(-2, -1)
        return transfer_matrix(turned.contiguous(), swapped).transpose(-2, -1).flip(-2, -1)
    words = _Words(g, lines)
    transfer = torch.empty_like(g)
    y = None
    for i in range(m):
        s = words.admittance(i)
        y = s if y is None else y.add_(s)
        transfer[..., i, :] = s.sum(-1)
        r = lines.bit_segment + (lines.sense if i == m - 1 else 0.0)
        if r:
            inverse = _inverse_of_one_plus(y, r)
            transfer[..., : i + 1, :] = transfer[..., : i + 1, :] @ inverse
            y = _behind(y, r, inverse)
    return transfer


def currents(voltage: torch.Tensor, conductance: torch.Tensor, lines: Lines) -> torch.Tensor:
    """Return the output currents (..., batch, bit_line) [A], differentiable by voltages and conductances.

    The gradients are exact, by the adjoint network (S. W. Director, R. A. Rohrer, IEEE Trans. Circuit Theory 16, 318
    (1969), doi 10.1109/TCT.1969.1082965): with u the potentials when the outputs are driven by the gradient y of the
    loss and the inputs are at ground, dL/dG_ij is the sum over the batch of the device's voltage times that which y
    puts across it, and dL/dV_i is the current that y sends into the driver of word line i. Both reuse the factors.

    Parameters
    ----------
    voltage : (..., batch, word_line) [V].
    conductance : (..., word_line, bit_line) [S], with the same leading dimensions.
    lines : resistances of the lines.
    """
    if lines.ideal:
        return voltage @ conductance
    return _Currents.apply(voltage, conductance, lines)  # type: ignore[return-value]


class _Currents(torch.autograd.Function):
    """I of a batch of voltages, by `Factors`."""

    @staticmethod
    def forward(ctx, voltage: torch.Tensor, conductance: torch.Tensor, lines: Lines) -> torch.Tensor:
        factors = Factors(conductance.detach(), lines)
        out, potential = factors.solve(voltage.detach())
        ctx.factors, ctx.voltage, ctx.potential = factors, voltage.detach(), potential
        return out

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_voltage, by_conductance = ctx.factors.adjoint(ctx.voltage, ctx.potential, grads[0])
        return by_voltage, by_conductance, None


class Factors:
    """Norton admittances behind each segment of the bit lines, kept for solutions with any number of inputs."""

    def __init__(self, g: torch.Tensor, lines: Lines) -> None:
        self.g, self.lines = g, lines
        self.words = _Words(g, lines)
        self.inverse: list[torch.Tensor | None] = []  # (1 + r Y_i)^-1
        self.behind: list[torch.Tensor] = []  # Y_i (1 + r Y_i)^-1
        self.total: list[torch.Tensor] = []  # c_i
        y = None
        for i in range(g.shape[-2]):
            s = self.words.admittance(i)
            self.total.append(s.sum(-1))
            y = s if y is None else self.behind[-1] + s
            r = self.segment(i)
            inverse = _inverse_of_one_plus(y, r) if r else None
            self.inverse.append(inverse)
            self.behind.append(y if inverse is None else _behind(y, r, inverse))

    def segment(self, i: int) -> float:
        """Return the resistance after bit-line node i."""
        return self.lines.bit_segment + (self.lines.sense if i == self.g.shape[-2] - 1 else 0.0)

    def solve(self, voltage: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output currents (..., batch, bit_line) and the bit lines' potentials (word_line, ...)."""
        return self._potentials([self._short(voltage, i) for i in range(self.g.shape[-2])], None)

    def respond(
        self, voltage: torch.Tensor, source: torch.Tensor | None, end: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the devices' voltages (..., batch, word_line, bit_line) and the currents (..., batch, bit_line).

        Parameters
        ----------
        voltage : (..., batch, word_line) of the drivers.
        source : (..., batch, word_line, bit_line) currents [A] in parallel with the devices, from word to bit line.
        end : (..., batch, bit_line) potentials of the bit lines' ends, 0 if not given.
        """
        m = self.g.shape[-2]
        impedances = [self.words.impedance(i) for i in range(m)]
        short = []
        for i in range(m):
            j = self._short(voltage, i)
            if source is not None:
                d = source[..., i, :]
                j = j + d - self.g[..., i, None, :] * (d @ impedances[i])
            short.append(j)
        out, potential = self._potentials(short, end)
        across = []
        for i in range(m):
            x = voltage[..., i, None] - potential[i]
            inner = self.g[..., i, None, :] * x
            if source is not None:
                inner = inner + source[..., i, :]
            across.append(x - inner @ impedances[i])
        return torch.stack(across, dim=-2), out

    def _short(self, voltage: torch.Tensor, i: int) -> torch.Tensor:
        return voltage[..., i, None] * self.total[i].unsqueeze(-2)

    def _potentials(self, short: list[torch.Tensor], end: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs and potentials of bit lines whose nodes are fed the currents `short`."""
        m = len(short)
        through: list[torch.Tensor] = []  # short-circuit currents behind each segment, (..., batch, bit_line)
        for i, j in enumerate(short):
            j = j + through[-1] if i else j
            inverse = self.inverse[i]
            through.append(j if inverse is None else j @ inverse)
        out = through[-1] if end is None else through[-1] - end @ self.behind[-1]
        potential = torch.empty((m, *out.shape), dtype=out.dtype, device=out.device)
        potential[m - 1] = out * self.segment(m - 1)
        if end is not None:
            potential[m - 1] += end
        for i in range(m - 2, -1, -1):
            below = potential[i + 1]
            potential[i] = below + self.segment(i) * (through[i] - below @ self.behind[i])
        return out, potential

    def adjoint(
        self, voltage: torch.Tensor, potential: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients by voltages and conductances for outputs driven by `y` (..., batch, bit_line)."""
        m = self.g.shape[-2]
        by_voltage, by_conductance = torch.empty_like(voltage), torch.empty_like(self.g)
        last = self.inverse[m - 1]
        u = y if last is None else y @ last
        for i in range(m - 1, -1, -1):
            if i < m - 1:
                u = u - self.segment(i) * (u @ self.behind[i])
            by_voltage[..., i] = (u * self.total[i].unsqueeze(-2)).sum(-1)
            share = self.words.share(i).transpose(-2, -1)
            across = (voltage[..., i, None] - potential[i]) @ share
            by_conductance[..., i, :] = (across * (u @ share)).sum(-2)
        return by_voltage, by_conductance


class _Words:
    """Word lines as multiports; everything (..., word_line, bit_line)."""

    def __init__(self, g: torch.Tensor, lines: Lines) -> None:
        self.g, self.lines = g, lines
        if lines.word_segment:
            self._chain(g * lines.word_segment)

    def _chain(self, x: torch.Tensor) -> None:
        """Eliminate each chain from both ends, in units of a segment's conductance; x = r G.

        `left` is the admittance that node k sees to its left, `right` to its right; ratio_k = V_k / V_(k+1) of a chain
        that is driven from the right.
        """
        n = x.shape[-1]
        source = self.lines.word_segment / (self.lines.word_segment + self.lines.driver)
        left, right = torch.empty_like(x), torch.empty_like(x)
        left[..., 0] = source
        right[..., n - 1] = source if self.lines.both_ends else 0.0
        for k in range(n - 1):
            a = left[..., k] + x[..., k]
            left[..., k + 1] = a / (1 + a)
            b = right[..., n - 1 - k] + x[..., n - 1 - k]
            right[..., n - 2 - k] = b / (1 + b)
        self.diagonal = self.lines.word_segment / (left + right + x)  # of A^-1
        self.log_ratio = -torch.log1p(left + x).cumsum(-1)

    def admittance(self, i: int) -> torch.Tensor:
        """Return S_i (..., bit_line, bit_line) [S]."""
        g = self.g[..., i, :]
        s = -(g.unsqueeze(-1) * self.impedance(i) * g.unsqueeze(-2))
        s.diagonal(dim1=-2, dim2=-1).add_(g)
        return s

    def share(self, i: int) -> torch.Tensor:
        """Return B_i = 1 - A_i^-1 D_i: with bit lines at u, the devices have the voltages B_i (V_i - u)."""
        b = -(self.impedance(i) * self.g[..., i, None, :])
        b.diagonal(dim1=-2, dim2=-1).add_(1.0)
        return b

    def impedance(self, i: int) -> torch.Tensor:
        """Return A_i^-1 (..., bit_line, bit_line) [Ohm]."""
        g = self.g[..., i, :]
        if self.lines.word_segment:
            c = self.log_ratio[..., i, :]
            before = torch.nn.functional.pad(c[..., :-1], (1, 0))
            ratio = torch.exp((before.unsqueeze(-2) - before.unsqueeze(-1)).clamp_(max=0.0)).triu_()  # j <= k
            inverse = ratio * self.diagonal[..., i, :].unsqueeze(-2)
            return inverse + inverse.triu(1).transpose(-2, -1)
        whole = torch.zeros((*g.shape, g.shape[-1]), dtype=g.dtype, device=g.device)
        if not self.lines.driver:
            return whole
        drivers = 2 if self.lines.both_ends else 1
        return whole + (1 / (drivers / self.lines.driver + g.sum(-1)))[..., None, None]


def _inverse_of_one_plus(y: torch.Tensor, r: float) -> torch.Tensor:
    matrix = y * r
    matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


def _behind(y: torch.Tensor, r: float, inverse: torch.Tensor) -> torch.Tensor:
    """Return Y (1 + r Y)^-1."""
    if float(r * y.diagonal(dim1=-2, dim2=-1).min()) > _DIRECT[y.dtype]:
        behind = inverse * (-1 / r)
        behind.diagonal(dim1=-2, dim2=-1).add_(1 / r)
        return behind
    behind = y @ inverse
    return (behind + behind.transpose(-2, -1)) / 2
