"""The JSON Schema of `calib-device-model-json/1`, the JSON that `calib card --format json` writes.

The file beside this module is the published schema (JSON Schema, draft 2020-12). It holds what the contract of device
models demands (`calib.model_contract`), so far as a schema can say it; `python -m calib.model_schema.build` writes it
again after a change of the contract. That `values` has the sizes that `dimensions` name, and that the identity is the
hash of the content, only reading the model checks (`calib.exporters.json.from_json`).

A document that an older schema allows stays valid: what is added is optional. Another format would be a new number in
`format`, and a file of its own here.
"""

import json
from importlib import resources
from typing import Any

FILE = "calib-device-model-json-1.schema.json"


def text() -> str:
    """Return the published schema as it stands in its file."""
    return resources.files(__name__).joinpath(FILE).read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    """Return the published schema."""
    return json.loads(text())
