"""A validation as one HTML page: the verdict, figures, tables, and what was compared with what."""

import json
from typing import Any

import xarray as xr

from calib.device_model import identity
from calib.validation_tables import comparison_section, validation_section


def validation_page(node: xr.Dataset, tree: xr.DataTree, sources: list[dict[str, Any]]) -> str:
    """Return the page.

    Parameters
    ----------
    node : from `calib.validate`.
    tree : the device model that was validated.
    sources : name and sha256 of each measurement file.
    """
    from calib import html
    from calib.validation_figures import validation_figures

    sections = [section for section in (validation_section(node), comparison_section(node)) if section]
    provenance = [("identity of the device model (SHA-256)", identity(tree))]
    provenance += [("measured", f"{source['name']}, sha256 {source['sha256']}") for source in sources]
    provenance.append(("method", str(node.attrs["method"])))
    return html.render(
        "validation.html.j2",
        name=str(tree.attrs.get("name", "")),
        verdict=str(node.attrs["verdict"]),
        findings=json.loads(node.attrs.get("findings", "[]")),
        pictures=html.pictures(validation_figures(node)),
        sections=sections,
        provenance=provenance,
    )
