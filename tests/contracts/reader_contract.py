"""What every reader of calib must do; a member is tested by subclassing `ReaderContract` with a file of its format."""

import abc
import gzip
from pathlib import Path

import numpy as np
import pytest

from calib import measurement, plugins, reading
from calib.errors import CalibError
from calib.readers.base import Reader, ReadOptions
from calib.units import QUANTITIES


class ReaderContract(abc.ABC):
    """Tests that a reader inherits; it gives its name and one good file."""

    name: str
    options: ReadOptions = ReadOptions()

    @abc.abstractmethod
    def good_file(self, folder: Path) -> Path:
        """Write a file of the format, made in the test, and return its path."""

    @pytest.fixture
    def reader(self) -> Reader:
        return plugins.load("calib.readers", self.name)

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        return self.good_file(tmp_path)

    def test_it_states_what_it_reads(self, reader) -> None:
        assert isinstance(reader, Reader)
        assert reader.name == self.name
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in reader.suffixes)
        assert isinstance(reader.name_map, dict)

    def test_it_recognises_its_own(self, reader, path) -> None:
        sniff = reader.sniff(path)
        assert 0.2 <= sniff.confidence <= 1
        assert sniff.reason
        assert reading.find_reader(path).reader.name == self.name

    def test_it_does_not_claim_foreign_bytes(self, reader, tmp_path) -> None:
        for content in (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", bytes(4096)):
            (tmp_path / "foreign.bin").write_bytes(content)
            assert reader.sniff(tmp_path / "foreign.bin").confidence < 0.2

    def test_it_gives_a_checked_measurement(self, reader, path) -> None:
        tree = reader.read(path, self.options)
        measurement.check(tree)
        for node in tree.children.values():
            for name, variable in node.variables.items():
                if str(name) in QUANTITIES and variable.attrs["units"] != "1":
                    assert variable.attrs["units"] == QUANTITIES[str(name)].unit

    def test_the_source_is_recorded(self, path) -> None:
        import json

        (source, *_) = json.loads(reading.read(path).attrs["sources"])
        assert set(source) == {"name", "sha256", "reader", "why"}
        assert len(source["sha256"]) == 64

    def test_reading_is_deterministic(self, reader, path) -> None:
        first, second = (reader.read(path, self.options) for _ in range(2))
        assert first.identical(second)

    def test_a_stated_temperature_replaces_the_files(self, reader, path) -> None:
        tree = reader.read(path, ReadOptions(columns=self.options.columns, temperature=321.0))
        for name, node in tree.children.items():
            if name != "extra":
                assert np.all(node["temperature"].values == 321.0)

    def test_a_truncated_file_ends_in_one_sentence_or_fewer_points(self, reader, path, tmp_path) -> None:
        content = path.read_bytes()
        cut = tmp_path / f"cut{path.suffix}"
        for size in (0, 1, len(content) // 3, len(content) // 2):
            cut.write_bytes(content[:size])
            message = ""
            try:
                measurement.check(reader.read(cut, self.options))
            except CalibError as error:
                message = str(error)
            assert not message or ("cut" in message and "\n" not in message)

    def test_noise_for_a_file_never_escapes_as_another_error(self, reader, tmp_path) -> None:
        rng = np.random.default_rng(0)
        suffix = reader.suffixes[0]
        for k in range(20):
            content = rng.integers(0, 256, 400, dtype=np.uint8).tobytes()
            content = gzip.compress(content) if k % 5 == 0 else content
            path = tmp_path / f"noise{k}{suffix}"
            path.write_bytes(content)
            with pytest.raises(CalibError, match="noise"):
                reader.read(path, self.options)
