"""HTML: a data sheet in one file, for a reader who has never seen calib.

The page needs nothing else: styles and figures are inside it, it has no scripts, and only DOIs lead out of it. It
prints on A4 and on Letter, and is read on a telephone as well.
"""

import xarray as xr

from calib.exporters import _sheet
from calib.exporters.base import Exporter


class Html(Exporter):
    """A self-contained data sheet."""

    name = "html"
    suffix = ".html"
    carries = "every characteristic with its uncertainty, figures, warnings and provenance, for people"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return _sheet.omits(device_model)

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        return {self.file_name(device_model): _page(device_model)}


def _page(tree: xr.DataTree) -> str:
    from calib import html

    return html.render(
        "card.html.j2",
        sheet=_sheet.sheet(tree),
        pictures=html.pictures(_sheet.drawings(tree)),
        columns=_sheet.COLUMNS,
        texts={"kind": _sheet.KIND, "table": _sheet.TABLE, "absent": _sheet.ABSENT, "closing": _sheet.CLOSING},
        install=_sheet.INSTALL,
    )


member = Html()
