"""What of a network is on crossbars, and what stays digital."""

from typing import Any

from torch import nn

from calib.crossbar.attention import MemristiveMultiheadAttention
from calib.crossbar.convolution import Convolution
from calib.crossbar.crossbars import bias_place
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.crossbar.recurrent import Recurrent, RecurrentCell
from calib.formatting import format_number, format_percent

CONVERTIBLE: tuple[type[nn.Module], ...] = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell,
    nn.MultiheadAttention,
)  # fmt: skip
"""Types of torch's layers that have a memristive form."""
COMPOSED = (Convolution, Recurrent, RecurrentCell, MemristiveMultiheadAttention)
"""Types of layers that have crossbars inside."""

_REASONS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.Embedding, nn.EmbeddingBag), "looks rows up, no product"),
    ((nn.Bilinear,), "multiplies two inputs with each other"),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), "a transposed convolution has no memristive form"),
    ((nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm), "scales by statistics of its input"),
    ((nn.modules.dropout._DropoutNd,), "no weights"),
    ((nn.PReLU,), "nonlinear"),
)


def form_of(module: nn.Module) -> type[nn.Module] | None:
    """Return the convertible type that a module is of, or None; with a forward of its own it is of none."""
    kind = next((kind for kind in CONVERTIBLE if isinstance(module, kind)), None)
    return None if kind is None or _has_own_forward(module, kind) else kind


def _has_own_forward(module: nn.Module, kind: type[nn.Module]) -> bool:
    names = ("forward", "_conv_forward") if hasattr(kind, "_conv_forward") else ("forward",)
    return any(name in module.__dict__ or getattr(type(module), name) is not getattr(kind, name) for name in names)


def why_digital(module: nn.Module) -> str:
    """Return why a module is not on a crossbar."""
    if form_of(module) is not None:
        return "was left out of the conversion"
    if isinstance(module, CONVERTIBLE):
        return "computes in a way of its own"
    for kinds, reason in _REASONS:
        if isinstance(module, kinds):
            return reason
    return "weights that its own code uses" if any(True for _ in module.parameters(recurse=False)) else "no weights"


def summary(module: nn.Module) -> list[dict[str, Any]]:
    """Describe a network, one dictionary for each crossbar and for each part that stays digital.

    Keys of all: name, place ('memristive' or 'digital'), kind (type of the layer), parameters.

    Keys of crossbars: layer (name of the layer that it is in), word_lines (the bias included), bit_lines (physical
    ones), outputs, groups (physical bit lines of an output), devices, synapses, mapping, bias ('line', 'digital' or
    None), input_range (full scale of |x|), input_mode, tiles, tile_rows, tile_columns, utilisation (devices used, of
    those of all tiles), array (list of sentences), device, g_off_siemens, g_on_siemens, input_voltage, effects (list of
    sentences), nodes, interpolation_error, digital (what of the layer is not on the crossbar, or None), notes (list of
    sentences about its conversion).

    Keys of digital parts: reason.
    """
    rows: list[dict[str, Any]] = []
    described: set[int] = set()  # parts of layers that have been described as a whole
    owners: dict[int, tuple[str, nn.Module]] = {}
    for name, part in module.named_modules():
        if id(part) in described:
            continue
        if isinstance(part, COMPOSED):
            for inner in memristive_layers(part):
                owners.setdefault(id(inner), (name, part))
        if isinstance(part, MemristiveLinear):
            rows.append(_crossbar_row(name, part, owners.get(id(part), (name, part))))
            continue
        whole = isinstance(part, CONVERTIBLE)
        own = sum(p.numel() for p in part.parameters(recurse=whole))
        if own or whole or not any(True for _ in part.children()):
            rows.append(_digital_row(name, part, own))
        if whole:
            described |= {id(inner) for inner in part.modules()}
    return rows


def _digital_row(name: str, part: nn.Module, parameters: int) -> dict[str, Any]:
    kind = type(part).__name__
    return {"name": name, "place": "digital", "kind": kind, "parameters": parameters, "reason": why_digital(part)}


def _crossbar_row(name: str, layer: MemristiveLinear, owner: tuple[str, nn.Module]) -> dict[str, Any]:
    devices, mapping, array = layer.devices, layer.mapping, layer.array
    bit_lines = mapping.bit_lines(layer.out_features)
    size = (layer.word_lines, bit_lines, mapping.groups)
    tiles = layer.tiles
    return {
        "name": name,
        "place": "memristive",
        "layer": owner[0],
        "kind": type(owner[1]).__name__,
        "parameters": sum(p.numel() for p in layer.parameters()),
        "word_lines": layer.word_lines,
        "bit_lines": bit_lines * mapping.groups,
        "outputs": layer.out_features,
        "groups": mapping.groups,
        "devices": layer.word_lines * bit_lines * mapping.groups,
        "synapses": layer.word_lines * layer.out_features,
        "mapping": mapping.text,
        "bias": bias_place(layer),
        "input_range": float(layer.input_range),
        "input_mode": array.input_mode,
        "tiles": len(tiles),
        "tile_rows": tiles[0].shape[0],
        "tile_columns": tiles[0].shape[1],
        "utilisation": array.utilisation(*size),
        "array": array.describe(),
        "device": devices.name,
        "g_off_siemens": devices.g_off,
        "g_on_siemens": devices.g_on,
        "input_voltage": devices.input_voltage,
        "effects": [effect.describe() for effect in devices.effects()],
        "nodes": layer.plan.count,
        "interpolation_error": layer.plan.error,
        "digital": getattr(owner[1], "digital", None),
        "notes": list(getattr(owner[1], "conversion_notes", ())),
    }


def summary_text(module: nn.Module) -> str:
    """Return the summary as tables of plain text: crossbars, equal ones of a layer in one line, and digital parts."""
    rows = summary(module)
    crossbars = [row for row in rows if row["place"] == "memristive"]
    digital = [row for row in rows if row["place"] == "digital"]
    lines = _crossbar_lines(crossbars) if crossbars else ["no memristive layers"]
    devices, tiles = (sum(row[key] for row in crossbars) for key in ("devices", "tiles"))
    if crossbars:
        lines += ["", f"{devices} devices in {tiles} tiles"]
    lines += [f"{row['layer'] or row['kind']}: {note}" for row in _first_of_layers(crossbars) for note in row["notes"]]
    parts = {row["kind"]: row["digital"] for row in crossbars if row["digital"]}
    if digital or parts:
        lines += ["", "Digital:"]
        header = ("name", "kind", "parameters", "reason")
        body = [(row["name"] or "(whole)", row["kind"], str(row["parameters"]), row["reason"]) for row in digital]
        body += [("", kind, "", text) for kind, text in parts.items()]
        lines += _table(header, body)
    return "\n".join(lines)


def _first_of_layers(crossbars: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({row["layer"]: row for row in reversed(crossbars)}.values())[::-1]


def _crossbar_lines(rows: list[dict[str, Any]]) -> list[str]:
    header = (
        "name",
        "kind",
        "crossbars",
        "word x bit lines",
        "tiles",
        "used",
        "input range",
        "bias",
        "mapping",
        "device",
    )
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        same = (row["layer"], row["word_lines"], row["bit_lines"], row["input_range"], row["bias"], row["mapping"])
        groups.setdefault(same, []).append(row)
    body = []
    for members in groups.values():
        row = members[0]
        body.append(
            (
                (row["name"] if len(members) == 1 else row["layer"]) or "(whole)",
                row["kind"],
                str(len(members)),
                f"{row['word_lines']} x {row['bit_lines']}",
                f"{row['tiles'] * len(members)} of {row['tile_rows']} x {row['tile_columns']}",
                format_percent(row["utilisation"]),
                f"+-{format_number(row['input_range'])} ({row['input_mode']})",
                row["bias"] or "none",
                row["mapping"],
                row["device"],
            )
        )
    return _table(header, body)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
