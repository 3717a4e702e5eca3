"""Arrays of a thousand lines and more: few inputs by iteration, all by elimination, and Kirchhoff's laws as a check.

Notation as in `line_response`: with Z the impedances of the lines alone and u the devices' voltages without currents,
the voltages x and currents i of linear devices satisfy x = u - Z i and i = G x. Z i takes two running sums along each
line. An array whose devices all have the same conductance g_0 is separable: with the eigenvectors of the impedances of
one word line and of one bit line, R_w = Q_w L_w Q_w', R_b = Q_b L_b Q_b',

    (Z^-1 + g_0)^-1 = Q (L_w + L_b) / (1 + g_0 (L_w + L_b)) Q',    Q = Q_b x Q_w,

four products of matrices as large as the array. It preconditions conjugate gradients, whose number of steps depends
only on how much conductances differ, not on the lines or the size of the array. The steps are taken in single
precision where that serves; the mismatch G x - i of Kirchhoff's laws is computed in double precision and solved for
again until it is as small as asked for.

`nodal_matrix` writes the same laws as one sparse matrix of all nodes, for a direct solution to compare with.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import splu

from calib.crossbar.line_resistance import Lines, norton_equivalents, transfer_matrix
from calib.crossbar.newton_steps import conjugate_gradients
from calib.errors import FitError, OptionError

METHODS = ("auto", "elimination", "iteration", "sparse")
STEPS, ROUNDS = 200, 12  # conjugate-gradient steps of a round, and rounds, at most
_INNER = 1e-5  # reduction of the mismatch in one round: single precision has it safely
_SINGLE = 1e4  # largest resistance of the lines times conductance for which single precision serves
_AT_A_TIME = 2**22  # devices times inputs
_ITERATION_COST = 3.5  # of an input by iteration, measured relative to the elimination of a row, see `_cheaper`


@dataclass(frozen=True)
class ArraySolution:
    """Output currents and how they were found.

    Attributes
    ----------
    currents : (batch, bit_line) [A].
    method : 'elimination', 'iteration' or 'sparse'.
    residual : (batch,) for 'iteration', sum |G x - i| / sum |G x| with x = u - Z i, which bounds the error of the
        outputs' sum relative to the devices' current; for the direct methods None.
    steps : of conjugate gradients, over all rounds, the most of any input.
    """

    currents: torch.Tensor
    method: str
    residual: torch.Tensor | None = None
    steps: int = 0


def array_currents(
    voltage: torch.Tensor, conductance: torch.Tensor, lines: Lines, *, method: str = "auto", tolerance: float = 1e-10
) -> ArraySolution:
    """Return the output currents of one large array of linear devices, without gradients.

    Parameters
    ----------
    voltage : (batch, word_line) [V].
    conductance : (word_line, bit_line) [S].
    method : 'elimination' (exact; m dense factorisations, little memory), 'iteration' (few inputs of a large array),
        'sparse' (one factorisation of all nodes by SuperLU; for comparison), or 'auto', the cheaper of the first two.
    tolerance : residual that 'iteration' reaches.

    Raises
    ------
    OptionError
        When the method is not known or the shapes do not fit.
    FitError
        When 'iteration' was asked for and does not reach the tolerance; 'auto' goes on to the elimination.
    """
    if method not in METHODS:
        raise OptionError(f"the method '{method}' is not known; expected one of {', '.join(METHODS)}")
    if conductance.dim() != 2 or voltage.dim() != 2 or voltage.shape[1] != conductance.shape[0]:
        raise OptionError(
            f"voltages {tuple(voltage.shape)} do not fit an array {tuple(conductance.shape)}; expected (batch, "
            "word_line) and (word_line, bit_line)"
        )
    v, g = voltage.detach(), conductance.detach()
    if lines.ideal:
        return ArraySolution(v @ g, "elimination")
    chosen = _cheaper(len(v), *g.shape) if method == "auto" else method
    if chosen == "sparse":
        return ArraySolution(_by_sparse_factors(v, g, lines), chosen)
    if chosen == "iteration":
        found = _by_iteration(v, g, lines, tolerance)
        assert found.residual is not None
        worst = float(found.residual.max())
        if worst <= tolerance:
            return found
        if method == "iteration":
            raise FitError(
                f"the currents of the array of {g.shape[0]} x {g.shape[1]} devices did not converge: Kirchhoff's laws "
                f"are violated by {worst:.1g} of the devices' current, {tolerance:.1g} was asked for; "
                "use the method 'elimination'"
            )
    return ArraySolution(_by_elimination(v, g, lines), "elimination")


def _cheaper(batch: int, m: int, n: int) -> str:
    """Return the faster method: the elimination takes m n^3 operations, an input by iteration m n (m + n) a step."""
    return "iteration" if batch * _ITERATION_COST * (m + n) < n * n else "elimination"


def _by_elimination(v: torch.Tensor, g: torch.Tensor, lines: Lines) -> torch.Tensor:
    """Carry the currents of these inputs only, or of all inputs where there are as many."""
    if 2 * len(v) > g.shape[0] or g.shape[0] < g.shape[1]:
        return v @ transfer_matrix(g, lines)
    j = torch.zeros((len(v), g.shape[1]), dtype=g.dtype, device=g.device)
    for i, _, c, inverse in norton_equivalents(g, lines):
        j = torch.addcmul(j, v[:, i, None], c)
        j = j if inverse is None else j @ inverse
    return j


def _by_iteration(v: torch.Tensor, g: torch.Tensor, lines: Lines, tolerance: float) -> ArraySolution:
    network = _EqualDevices(g, lines)
    some = max(1, _AT_A_TIME // g.numel())
    parts = [_iterated(v[k : k + some], g, lines, network, tolerance) for k in range(0, len(v), some)]
    return ArraySolution(
        torch.cat([p.currents for p in parts]), "iteration",
        torch.cat([p.residual for p in parts if p.residual is not None]), max(p.steps for p in parts),
    )  # fmt: skip


def _iterated(
    v: torch.Tensor, g: torch.Tensor, lines: Lines, network: "_EqualDevices", tolerance: float
) -> ArraySolution:
    """Solve for some inputs; everything (word_line, batch, bit_line)."""
    u = v.T.unsqueeze(-1)
    wide, low = g.unsqueeze(1), g.to(network.dtype).unsqueeze(1)
    i = torch.zeros((len(g), len(v), g.shape[1]), dtype=g.dtype, device=g.device)
    x, steps, residual, out = u.expand_as(i), 0, torch.ones_like(v[:, 0]), torch.zeros_like(i[0])
    for _ in range(ROUNDS):
        current = wide * x
        rho = current - i
        before, residual = residual, rho.abs().sum((0, -1)) / current.abs().sum((0, -1)).clamp(min=1e-300)
        out = current.sum(0)
        if bool((residual <= tolerance).all()) or (steps and not bool((residual < before / 2).any())):
            break
        unit = rho.abs().amax((0, -1), keepdim=True).clamp_(min=1e-300)
        scaled = (rho / unit).to(network.dtype)
        goal = max(_INNER, 0.2 * tolerance / float(residual.max())) * scaled.abs().sum((0, -1))
        dx, left, count = conjugate_gradients(network, low, scaled, goal, STEPS)
        steps += count
        i += rho + unit * (low * dx - left)
        x = u - line_drops(i, lines)
    return ArraySolution(out, "iteration", residual, steps)


class _EqualDevices:
    """The array with the mean conductance everywhere: a preconditioner.

    In single precision, unless the lines take so much more than the devices that rounding of currents would be large
    among the devices' voltages.
    """

    def __init__(self, g: torch.Tensor, lines: Lines) -> None:
        m, n = g.shape
        word, bit = line_impedances(m, n, lines)
        scale = float(g.mean())
        along_word, self._word = torch.linalg.eigh(word.to(g.device))
        along_bit, self._bit = torch.linalg.eigh(bit.to(g.device))
        both = along_bit.clamp(min=0)[:, None, None] + along_word.clamp(min=0)
        self.dtype = torch.float32 if scale * float(both.max()) < _SINGLE else torch.float64
        self.g = torch.full((1,), scale, dtype=self.dtype, device=g.device)
        self._weight = (both / (1 + scale * both)).to(self.dtype)
        self._word, self._bit = self._word.to(self.dtype), self._bit.to(self.dtype)

    def respond(self, voltage: None, end: None, source: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the devices' voltages for current sources (word_line, batch, bit_line)."""
        m, batch, n = source.shape
        t = (self._bit.T @ (source.reshape(-1, n) @ self._word).reshape(m, -1)).reshape(m, batch, n)
        t.mul_(self._weight)
        t = (self._bit @ t.reshape(m, -1)).reshape(-1, n) @ self._word.T
        return t.reshape(m, batch, n).neg_(), None


def line_impedances(m: int, n: int, lines: Lines) -> tuple[torch.Tensor, torch.Tensor]:
    """Return R_w (bit_line, bit_line) of a word line and R_b (word_line, word_line) of a bit line [Ohm], no devices."""
    j, i = torch.arange(n, dtype=torch.float64), torch.arange(m, dtype=torch.float64)
    near, far = torch.minimum(j, j[:, None]), torch.maximum(j, j[:, None])
    word = lines.driver + lines.word_segment * (near + 1)
    whole = 2 * (lines.driver + lines.word_segment) + lines.word_segment * (n - 1)
    if lines.both_ends and whole:
        word = word * (lines.driver + lines.word_segment * (n - far)) / whole
    bit = lines.sense + lines.bit_segment * (m - torch.maximum(i, i[:, None]))
    return word, bit


def line_drops(current: torch.Tensor, lines: Lines) -> torch.Tensor:
    """Return Z i, the voltages (word_line, ..., bit_line) that currents of devices take from them along the lines."""
    n = current.shape[-1]
    through = current.flip(-1).cumsum(-1).flip(-1)  # of the segment before each node of a word line
    first = lines.driver + lines.word_segment
    if lines.both_ends and first:
        drop = lines.word_segment * (through.cumsum(-1) - through[..., :1]) + first * through[..., :1]
        back = (drop[..., -1:] + 0.0) / (2 * first + lines.word_segment * (n - 1))  # what the far end takes over
        path = first + lines.word_segment * torch.arange(n, dtype=current.dtype, device=current.device)
        drop = drop - back * path
    else:
        drop = lines.word_segment * through.cumsum(-1) + lines.driver * through[..., :1]
    along = current.cumsum(0)  # of the segment after each node of a bit line
    return drop + lines.bit_segment * along.flip(0).cumsum(0).flip(0) + lines.sense * along[-1:]


def nodal_matrix(
    conductance: np.ndarray, lines: Lines
) -> tuple[scipy.sparse.csc_matrix, scipy.sparse.csc_matrix, scipy.sparse.csr_matrix, np.ndarray]:
    """Return the nodal equations A p = B V, and the outputs I = C p + V D, of an array.

    Lines without segment resistance are one node each; a node at a known potential is none. Kirchhoff's current law
    holds at each of the nodes of p.

    Returns
    -------
    A (node, node), B (node, word_line), C (bit_line, node) and D (word_line, bit_line).
    """
    m, n = conductance.shape
    rows, columns = np.indices((m, n))
    word_nodes = m * n if lines.word_segment else m * bool(lines.driver)
    word = (rows * n + columns) if lines.word_segment else (rows if lines.driver else np.full((m, n), -1))
    bit = (rows * n + columns) if lines.bit_segment else (columns if lines.sense else np.full((m, n), -1))
    bit = np.where(bit >= 0, bit + word_nodes, -1)
    count = word_nodes + (m * n if lines.bit_segment else n * bool(lines.sense))
    sources, ends = count + np.arange(m), count + m + np.arange(n)  # known: drivers, and ground apart by bit line
    word = np.where(word >= 0, word, sources[:, None])
    bit = np.where(bit >= 0, bit, ends)
    links = [(word, bit, conductance)]
    if lines.word_segment:
        links.append((word[:, 1:], word[:, :-1], np.full((m, n - 1), 1 / lines.word_segment)))
    if lines.bit_segment:
        links.append((bit[1:], bit[:-1], np.full((m - 1, n), 1 / lines.bit_segment)))
    if not lines.ideal_words:
        for side in (0, -1)[: 2 if lines.both_ends else 1]:
            links.append((word[:, side], sources, np.full(m, 1 / (lines.word_segment + lines.driver))))
    if lines.bit_segment or lines.sense:
        links.append((bit[-1], ends, np.full(n, 1 / (lines.bit_segment + lines.sense))))
    first, second, value = (np.concatenate([np.ravel(link[k]) for link in links]) for k in range(3))
    total = count + m + n
    whole = scipy.sparse.coo_matrix(
        (np.concatenate([value, value, -value, -value]),
         (np.concatenate([first, second, first, second]), np.concatenate([first, second, second, first]))),
        shape=(total, total),
    ).tocsr()  # fmt: skip
    inner, driven, ground = slice(0, count), slice(count, count + m), slice(count + m, total)
    return (
        whole[inner, inner].tocsc(), -whole[inner, driven].tocsc(), -whole[ground, inner],
        -whole[ground, driven].toarray().T,
    )  # fmt: skip


def _by_sparse_factors(v: torch.Tensor, g: torch.Tensor, lines: Lines) -> torch.Tensor:
    a, b, c, d = nodal_matrix(g.cpu().double().numpy(), lines)
    inputs = v.cpu().double().numpy()
    potential = splu(a, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}, diag_pivot_thresh=0.0).solve(
        b @ inputs.T
    )
    return torch.as_tensor((c @ potential).T + inputs @ d).to(g)
