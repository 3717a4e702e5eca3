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

and after the last segment and the sense resistance J is the output. Only sums of positive numbers make c_i and the
diagonal of S_i, so resistances of zero, on either side, are exact, and so is everything between zero and lines that
let nothing through. Carrying J for every input gives the transfer matrix T, I = V T, of all inputs at once in m dense
factorisations of n x n. Because the network is reciprocal, an array with fewer word lines than bit lines is solved
transposed. `line_response` keeps the factors for the devices' voltages and for gradients.
"""

from dataclasses import dataclass

import torch

from calib.errors import FitError, OptionError

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

    @property
    def ideal_words(self) -> bool:
        """Whether word lines and their drivers have no resistance."""
        return not (self.word_segment or self.driver)

    def after(self, row: int, rows: int) -> float:
        """Return the resistance [Ohm] between node `row` of a bit line of `rows` nodes and what follows it."""
        return self.bit_segment + (self.sense if row == rows - 1 else 0.0)


def transfer_matrix(conductance: torch.Tensor, lines: Lines) -> torch.Tensor:
    """Return T [S] with I = V @ T, for arrays of `conductance` [S], both (..., word_line, bit_line).

    Arrays along the leading dimensions are solved together. Not differentiable; `line_currents.tile_currents` is.
    """
    g = conductance.detach()
    if lines.ideal:
        return g.clone()
    m, n = g.shape[-2:]
    if m < n and not lines.both_ends:
        swapped = Lines(lines.bit_segment, lines.word_segment, lines.sense, lines.driver)
        turned = g.flip(-2, -1).transpose(-2, -1)
        return transfer_matrix(turned.contiguous(), swapped).transpose(-2, -1).flip(-2, -1)
    transfer = torch.empty_like(g)
    for i, r, j, inverse in norton_equivalents(g, lines):
        transfer[..., i, :] = j
        if r:
            assert inverse is not None
            transfer[..., : i + 1, :] = transfer[..., : i + 1, :] @ inverse
    return transfer


def norton_equivalents(g: torch.Tensor, lines: Lines):
    """Go down the bit lines of arrays g (..., word_line, bit_line).

    Yields
    ------
    The row i, the resistance r that follows it, c_i (..., bit_line) and (1 + r Y_i)^-1, which is None for r = 0.
    """
    words, m = WordLines(g, lines), g.shape[-2]
    y = None
    for i in range(m):
        s, c = words.multiport((..., i, slice(None)))
        y = s if y is None else y.add_(s)
        r = lines.after(i, m)
        inverse = inverse_of_one_plus(y, r) if r else None
        yield i, r, c, inverse
        if inverse is not None and i < m - 1:
            y = behind(y, r, inverse)


class WordLines:
    """Word lines as multiports; conductances (..., bit_line), one word line for every leading index."""

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
        around = left + right
        self.diagonal = self.lines.word_segment / (around + x)  # of A^-1
        self.across = around / (around + x)  # 1 - G times that diagonal
        self.log_ratio = -torch.log1p(left + x).cumsum(-1)

    def impedance(self, index) -> torch.Tensor:
        """Return A^-1 (..., bit_line, bit_line) [Ohm] of the word lines at `index`."""
        g = self.g[index]
        if self.lines.word_segment:
            c = self.log_ratio[index]
            before = torch.nn.functional.pad(c[..., :-1], (1, 0))
            ratio = before.unsqueeze(-2) - before.unsqueeze(-1)
            ratio = ratio.clamp_(max=0.0).exp_().triu_().mul_(self.diagonal[index].unsqueeze(-2))  # j <= k
            return ratio.add_(ratio.triu(1).transpose(-2, -1))
        whole = torch.zeros((*g.shape, g.shape[-1]), dtype=g.dtype, device=g.device)
        if not self.lines.driver:
            return whole
        return whole + (1 / (self._drivers() + g.sum(-1)))[..., None, None]

    def multiport(self, index, impedance: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return S (..., bit_line, bit_line) [S] and c (..., bit_line) [S] of the word lines at `index`."""
        g, z = self.g[index], self.impedance(index) if impedance is None else impedance
        s = (z * g.unsqueeze(-1)).mul_(g.unsqueeze(-2)).neg_()
        diagonal = s.diagonal(dim1=-2, dim2=-1)
        if self.lines.word_segment:
            diagonal.copy_(g * self.across[index])
            c = z[..., 0] + z[..., -1] if self.lines.both_ends else z[..., 0]
            return s, c * g / (self.lines.word_segment + self.lines.driver)
        diagonal.add_(g)
        return s, g * z[..., 0] * self._drivers() if self.lines.driver else g

    def _drivers(self) -> float:
        return (2 if self.lines.both_ends else 1) / self.lines.driver


def inverse_of_one_plus(y: torch.Tensor, r: float) -> torch.Tensor:
    """Return (1 + r Y)^-1 of symmetric Y >= 0.

    Raises
    ------
    FitError
        When rounding leaves no positive matrix.
    """
    matrix = y * r
    matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed.any()):
        raise FitError(
            f"Kirchhoff's laws of an array have no solution in {str(y.dtype)[6:]}: line resistances times device "
            f"conductances reach {float(matrix.diagonal(dim1=-2, dim2=-1).max()):.1g}, or conductances are negative or "
            "not numbers; check the conductances, use float64, or limit the lines' resistance"
        )
    return torch.cholesky_inverse(factor)


def behind(y: torch.Tensor, r: float, inverse: torch.Tensor) -> torch.Tensor:
    """Return Y (1 + r Y)^-1."""
    if float(r * y.diagonal(dim1=-2, dim2=-1).min()) > _DIRECT[y.dtype]:
        found = inverse * (-1 / r)
        found.diagonal(dim1=-2, dim2=-1).add_(1 / r)
        return found
    found = y @ inverse
    return (found + found.transpose(-2, -1)) / 2
