"""Damaged instrument files end in a Measurement that passes its check, or in one sentence; never in another error."""

import random

import pytest

import calib
from calib.errors import CalibError
from calib.reading import find_reader
from tests.readers import golden

CELLS = [b"", b"1e999", b"-1e308", b"nan", b"99999999999999999999", b"--", b"\xff\xfe", b'"', b"-1", b"CT_s", b"1/0"]
FILES = sorted(path.name for path in golden.FOLDER.glob("*.*"))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Truncate, flip bits, exchange or repeat lines, replace or remove cells, insert bytes, or change the encoding."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        lines, cells = data.split(b"\n"), data.split(b",")
        i, j, k = rng.randrange(len(lines)), rng.randrange(len(lines)), rng.randrange(len(cells))
        kind = rng.randrange(7)
        if kind == 0:
            data = data[: rng.randrange(len(data) + 1)]
        elif kind == 1 and data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
            data = bytearray(b"\n".join(lines))
        elif kind == 3:
            data = bytearray(b"\n".join([*lines[: j + 1], lines[i], *lines[j + 1 :]]))
        elif kind == 4:
            cells[k] = bytearray(rng.choice(CELLS))
            data = bytearray(b",".join(cells))
        elif kind == 5:
            data[i:i] = rng.randbytes(rng.randint(1, 9))
        else:
            data = bytearray(data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-8-sig"])))
    return bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(tmp_path, name) -> None:
    rng = random.Random(name)
    own = find_reader(golden.FOLDER / name).reader.name
    content = (golden.FOLDER / name).read_bytes()
    path = tmp_path / f"damaged{(golden.FOLDER / name).suffix}"
    for _ in range(30):
        path.write_bytes(damaged(content, rng))
        message = ""
        try:
            calib.read(path, reader=own if rng.random() < 0.7 else None, series_resistance=1000.0)
        except CalibError as error:
            message = str(error)
        assert "\n" not in message
