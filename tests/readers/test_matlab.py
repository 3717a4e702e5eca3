"""MATLAB files of both generations, made here: written by scipy, and by h5py in the layout of -v7.3."""

import h5py
import numpy as np
import pytest
import scipy.io

import calib
from calib import measurement as m
from calib.errors import ReadError

V = np.concatenate([np.linspace(0, 1, 11), np.linspace(0.9, 0, 10)])
I = 1e-5 * np.sinh(2 * V)


def write_v73(path, content) -> None:
    """Write nested mappings, cells (lists), texts and arrays as MATLAB does with -v7.3."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def put(parent, name, value):
            if isinstance(value, dict):
                group = parent.create_group(name)
                group.attrs["MATLAB_class"] = np.bytes_("struct")
                for key, item in value.items():
                    put(group, key, item)
            elif isinstance(value, list):
                links = [put(refs, f"r{len(refs)}", item).ref for item in value]
                data = parent.create_dataset(name, data=np.array(links, dtype=h5py.ref_dtype)[:, None])
                data.attrs["MATLAB_class"] = np.bytes_("cell")
            elif isinstance(value, str):
                codes = np.array([[ord(letter)] for letter in value], dtype=np.uint16)
                data = parent.create_dataset(name, data=codes)
                data.attrs["MATLAB_class"] = np.bytes_("char")
            else:
                data = parent.create_dataset(name, data=np.atleast_2d(value).T, compression="gzip")
                data.attrs["MATLAB_class"] = np.bytes_("double")
            return parent[name]

        for key, item in content.items():
            put(file, key, item)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_v5(path, content) -> None:
    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            cells = np.empty(len(value), dtype=object)
            cells[:] = [plain(item) for item in value]
            return cells
        return value

    scipy.io.savemat(path, plain(content), do_compression=True)


@pytest.fixture(params=["v5", "v73"])
def write(request, tmp_path):
    def writer(content):
        path = tmp_path / "chip.mat"
        {"v5": write_v5, "v73": write_v73}[request.param](path, content)
        return path

    return writer


def whole(path, **options) -> dict[tuple[str, int], np.ndarray]:
    """Currents by device and cycle, their branches joined."""
    node = calib.read(path, **options)["iv"].to_dataset()
    found: dict = {}
    for k in range(node.sizes["sweep"]):
        key = (str(node["device"].values[k]), int(node["cycle"].values[k]))
        current = node["current"].values[k]
        found[key] = np.append(found.get(key, []), current[np.isfinite(current)])
    return found


def test_vectors_with_units_in_their_names(write) -> None:
    path = write({"voltage_mV": 1e3 * V[:, None], "i_uA": 1e6 * I[:, None], "note": "third try", "gain": np.eye(3)})
    tree = calib.read(path)
    node = tree["iv"]
    assert set(node["device"].values) == {"chip"}
    assert np.nanmax(node["voltage"].values) == pytest.approx(1.0)
    assert np.nanmax(node["current"].values) == pytest.approx(I.max())
    assert tree["extra"]["gain"].values.tolist() == np.eye(3).ravel().tolist()
    assert any("third try" in note for note in m.notes_of(node))


def test_a_matrix_has_one_curve_per_column(write) -> None:
    path = write({"V": V[:, None], "I": np.stack([I, 2 * I, 3 * I], axis=1)})
    found = whole(path)
    assert [device for device, _ in found] == ["chip-001", "chip-002", "chip-003"]
    assert np.max(found["chip-003", -1 if ("chip-003", -1) in found else 0]) == pytest.approx(3 * I.max())
    (question,) = [q for q in m.notes_of(calib.read(path)["iv"], "questions") if "--pairs" in q]
    assert "3 curves" in question
    assert set(whole(path, pairs="cycle")) == {("chip", k) for k in range(3)}


def test_structs_are_devices_and_state_their_conditions(write) -> None:
    path = write(
        {
            "temperature": np.array([[358.15]]),
            "A1": {"voltage": V[None, :], "current": I[None, :], "compliance_uA": np.array([[50.0]])},
            "B2": {"voltage": V[None, :], "current": 2 * I[None, :], "device": "other"},
        }
    )
    node = calib.read(path)["iv"]
    assert set(node["device"].values) == {"A1", "other"}
    assert np.all(node["temperature"].values == 358.15)
    of_a1 = node["device"].values == "A1"
    assert np.nanmax(node["compliance"].values[of_a1]) == pytest.approx(50e-6)


def test_cells_may_have_unequal_lengths(write) -> None:
    path = write({"data": {"V": [V, V[:15]], "I": [I, I[:15]], "device": ["left", "right"]}})
    found = whole(path)
    assert sorted(device for device, _ in found) == ["left", "right"]


def test_resistance_against_time_is_reads(write) -> None:
    time = np.arange(50.0)
    path = write({"t": time, "R_kohm": np.stack([10 + time, 20 + time], axis=1)})
    node = calib.read(path)["reads"]
    assert node.sizes == {"trace": 2, "sample": 50}
    assert node["conductance"].values[:, 0] == pytest.approx([1e-4, 5e-5])
    assert node["time"].values[1].tolist() == time.tolist()


def test_unknown_names_are_listed_with_their_shapes(write) -> None:
    path = write({"a": V[:, None], "run": {"y": I[:, None]}})
    with pytest.raises(ReadError, match=r"holds a \(21 x 1\), run.y \(21 x 1\); .*--columns voltage=NAME,current=NAME"):
        calib.read(path)
    assert np.nanmax(calib.read(path, columns="voltage=a,current=run.y")["iv"]["current"].values) == I.max()
    with pytest.raises(ReadError, match=r"'chip.mat' has no such variable; it holds a"):
        calib.read(path, columns="voltage=z,current=y")


def test_a_single_matrix_by_its_columns(write) -> None:
    path = write({"sweep_data": np.stack([V, I], axis=1)})
    assert np.nanmax(calib.read(path, columns="voltage=0,current=1")["iv"]["current"].values) == I.max()


def test_unequal_lengths_are_refused(write) -> None:
    with pytest.raises(ReadError, match="current has 21 points but its voltage has 20"):
        calib.read(write({"V": V[:-1], "I": I}))


def test_a_steady_voltage_is_reads(write) -> None:
    node = calib.read(write({"V": np.full(9, 0.2), "I": np.full(9, 2e-6)}))["reads"]
    assert node["conductance"].values[0] == pytest.approx(np.full(9, 1e-5))


def test_struct_arrays(tmp_path) -> None:
    runs = np.array(
        [(V[:, None], I[:, None]), (V[:, None], 2 * I[:, None])], dtype=[("voltage", "O"), ("current", "O")]
    )
    scipy.io.savemat(tmp_path / "runs.mat", {"runs": runs})
    assert len(whole(tmp_path / "runs.mat")) == 2


def test_functions_and_complex_numbers_are_left_out_with_a_note(tmp_path) -> None:
    scipy.io.savemat(tmp_path / "z.mat", {"V": V, "I": I, "impedance": np.array([1 + 2j])})
    notes = m.notes_of(calib.read(tmp_path / "z.mat")["iv"])
    assert any("left out: impedance" in note for note in notes)


def test_absurd_sizes_are_refused_before_they_are_read(tmp_path) -> None:
    with h5py.File(tmp_path / "bomb.mat", "w") as file:
        file.create_dataset("V", shape=(1 << 40,), dtype="f8", chunks=(1 << 20,), fillvalue=1.0)
    with pytest.raises(
        ReadError, match=r"'bomb.mat' holds more numbers than calib reads .*'V' alone has 1099511627776"
    ):
        calib.read(tmp_path / "bomb.mat")
