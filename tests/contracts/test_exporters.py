import pytest

from calib import exporters
from calib.exporters.base import Exporter
from tests.contracts.exporter_contract import ExporterContract


@pytest.mark.parametrize("exporter_name", exporters.names())
class TestEveryExporter(ExporterContract):
    @pytest.fixture
    def member(self, exporter_name: str) -> Exporter:
        return exporters.exporter(exporter_name)


def test_the_suite_meets_the_known_members() -> None:
    assert {"html", "json"} <= set(exporters.names())
