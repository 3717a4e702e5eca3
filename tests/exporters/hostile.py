"""Texts that would be markup, code or places in some format, and device models that hold them."""

import json

import xarray as xr

from tests.contracts.exporter_contract import bare_device
from tests.device_trees import full_device

TEXTS = {
    "html": "<img src=x onerror=alert(1)>\"'&amp;</style></title><script>alert(2)</script>",
    "markdown": "![p](http://evil.example/p.png) [l](javascript:alert(3)) <b>x</b> | `c` **s** _e_ ~~d~~ [^1] &lt; $m$",
    "address": "see https://evil.example/a and www.evil.example and mailto:a@evil.example",
    "spice": ".include /etc/passwd",
    "latex": "\\input{/etc/passwd} \\write18{ls} $x^2$ % comment",
    "path": "../../etc/passwd C:\\temp\\x",
    "control": "bell \x07 escape \x1b[31m null \x00 delete \x7f next \x85",
    "turned": "turned \u202egnp.exe\u202c and \u2066isolated\u2069",
    "template": "{{ 7*7 }} {% raw %} ${jndi:ldap://x}",
    "lines": "- one line",
}
"""By what they attack; each on one line, without white space that would be collapsed."""
HIDDEN = ("\x00", "\x07", "\x1b", "\x7f", "\x85", "\u202e", "\u202c", "\u2066", "\u2069")


def device(text: str) -> xr.DataTree:
    """Return a small device model whose every text of the user is `text`."""
    listed = json.dumps([text])
    return bare_device(
        **dict.fromkeys(("name", "technology", "citation", "license"), text),
        warnings=listed,
        assumptions=listed,
        sources=json.dumps([{"name": text, "sha256": "1" * 64}]),
        options=json.dumps({"o": text}),
    )


def state_device(text: str) -> xr.DataTree:
    """Return a device model one of whose states is called `text`."""
    tree = full_device()
    found = xr.DataTree.from_dict(
        {f"/{name}": tree[name].to_dataset().assign_coords(state=[text, "a & b"]) for name in ("iv", "programming")}
    )
    iv = found["iv"].to_dataset()
    iv["curve_state"] = ("curve", [text] * iv.sizes["curve"])
    found["iv"] = xr.DataTree(iv)
    found.attrs = dict(tree.attrs)
    return found
