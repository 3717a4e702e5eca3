"""Text that a user wrote, made harmless for documents: what would be invisible or turn text round is written out.

Escaping what a format takes as markup is the format's own matter; this comes before it.
"""

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr

_LONGEST_LABEL = 24
_LABELS = ("state", "level_name", "polarity", "target")
"""Ends of the names of variables whose texts are labels in figures."""
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but tab and line ends
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates, which change the direction of what follows
    "\ufdd0-\ufdef\ufeff\ufff9-\uffff"  # no characters, byte order mark, annotations
    "\ud800-\udfff]"  # halves of pairs, which cannot be encoded
)
_DOI = re.compile(r"\b10\.\d{4,9}/[^\s\"'<>]+[^\s\"'<>.,;:)\]]")


def visible(text: str) -> str:
    r"""Return text with every character that is invisible or turns the direction of text as `\x07` or `\u202e`."""
    return _HIDDEN.sub(_code, text)


def one_line(text: str) -> str:
    """Return `visible` text with every run of white space, line ends included, as one space."""
    return " ".join(visible(text).split())


def dois(text: str) -> Iterator[tuple[str, str]]:
    """Yield text in pieces, each with the address of its DOI, '' where it is none."""
    end = 0
    for match in _DOI.finditer(text):
        yield text[end : match.start()], ""
        yield match[0], f"https://doi.org/{urllib.parse.quote(match[0], safe='/:;.-_~')}"
        end = match.end()
    yield text[end:], ""


def escape_hidden(json_text: str) -> str:
    """Return JSON text, unchanged in meaning, with the characters that `visible` writes out as JSON escapes."""
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)


def visible_model(tree: xr.DataTree) -> xr.DataTree:
    """Return a copy of a device model whose texts (attributes, names of states and devices) are `visible` ones."""
    return _copied(tree, lambda name, text: one_line(text))


def with_short_names(tree: xr.DataTree) -> xr.DataTree:
    """Return a copy of a device model with names of states and levels that fit into a figure's legend.

    Names that would become the same are told apart by a number.
    """
    short: dict[str, str] = {}

    def shortened(name: str, text: str) -> str:
        if len(text) <= _LONGEST_LABEL or not name.endswith(_LABELS):
            return text
        if text not in short:
            short[text] = f"{text[: _LONGEST_LABEL - 4]}\N{HORIZONTAL ELLIPSIS} {len(short) + 1}"
        return short[text]

    return _copied(tree, shortened)


def _code(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _copied(tree: xr.DataTree, change: Callable[[str, str], str]) -> xr.DataTree:
    """Return a copy with visible attributes, and every text of a variable changed by `change(name, text)`."""
    nodes = {f"/{name}": _node(node.to_dataset(), change) for name, node in tree.children.items()}
    copy = xr.DataTree.from_dict(nodes)
    copy.attrs = {key: _attribute(value) for key, value in tree.attrs.items()}
    return copy


def _node(node: xr.Dataset, change: Callable[[str, str], str]) -> xr.Dataset:
    changed = {}
    for name in node.variables:
        variable = node[name].variable
        if variable.dtype.kind in "UO":
            before = [str(value) for value in variable.values.ravel()]
            after = [change(str(name), text) for text in before]
            if after != before:
                changed[name] = variable.copy(data=np.array(after, dtype=str).reshape(variable.shape))
    node = node.assign(changed) if changed else node.copy()
    node.attrs = {key: _attribute(value) for key, value in node.attrs.items()}
    return node


def _attribute(value: Any) -> Any:
    """Return an attribute with visible text, also inside the JSON that some attributes are."""
    if not isinstance(value, str):
        return value
    if value[:1] in ("[", "{"):
        try:
            return json.dumps(_within(json.loads(value)), ensure_ascii=False)
        except ValueError:
            return visible(value)
    return visible(value)


def _within(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, list):
        return [_within(item) for item in value]
    if isinstance(value, dict):
        return {one_line(key): _within(item) for key, item in value.items()}
    return value
