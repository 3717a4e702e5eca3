"""The NeuroSim card: the conversion of nonlinearity, and lines that a compiler takes."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from calib.exporters._pulse_response import directions, normalised_a
from calib.exporters.neurosim import comment, dnn, label, member, mlp, options
from calib.pulse_laws import LAWS
from tests.device_trees import full_device
from tests.exporters.simulator_devices import drifting, pulsed

# rows of NeuroSim's table of the normalised A by label (MLP+NeuroSim 3.0, formula.cpp)
TABLE = {0.01: 126.268958, 0.5: 2.519877, 1.0: 1.251653, 2.4: 0.499181, 4.88: 0.200303, 9.0: 0.022810}


@pytest.mark.parametrize("name", TABLE)
def test_normalised_a_is_that_of_the_table(name) -> None:
    assert normalised_a(name) == pytest.approx(TABLE[name], rel=6e-4)
    assert normalised_a(-name) == -normalised_a(name)


def neurosim_curve(n: np.ndarray, total: float, a: float, low: float, high: float) -> np.ndarray:
    """Return NeuroSim's conductance after n pulses from `low` upwards."""
    b = (high - low) / (1 - np.exp(-total / a))
    return b * (1 - np.exp(-n / a)) + low


@pytest.mark.parametrize("k", [0.1, 1.0, 3.0, 8.0, -0.5, -4.0])
def test_the_label_gives_the_curve_back(k) -> None:
    """A curve of soft bounds -> its deviation -> label -> normalised A -> NeuroSim's curve."""
    x = np.linspace(0, 1, 2001)
    curve = LAWS["soft-bounds"].f(x, np.full_like(x, np.arcsinh(k)))
    deviation = (curve - x)[np.abs(curve - x).argmax()]
    a = normalised_a(deviation / 0.099)
    np.testing.assert_allclose(neurosim_curve(x * 60, 60, a * 60, 0, 1), curve, atol=2e-5)


def test_label_zero_is_a_line() -> None:
    assert normalised_a(0.0) == np.inf
    with pytest.raises(ValueError, match="beyond what the law can have"):
        normalised_a(10.1)


def parameters(tree) -> dict[str, str]:
    return {name: value for name, value, _ in mlp(tree)}


def test_a_fitted_device_runs_as_neurosim_runs_it() -> None:
    """Potentiation from G_min up; depression backwards along a curve with negative A, from G_max down."""
    tree = pulsed(noise=0.0)
    p = parameters(tree)
    n = np.arange(61)
    found = directions(tree)
    assert (p["maxNumLevelLTP"], p["maxNumLevelLTD"]) == ("60", "60")
    a_up, a_down = (60 * normalised_a(float(p[f"NL_{name}"])) for name in ("LTP", "LTD"))
    assert a_up > 0 > a_down
    np.testing.assert_allclose(neurosim_curve(n, 60, a_up, 1e-6, 5e-6), found["potentiation"].at(n), atol=1e-3 * 4e-6)
    np.testing.assert_allclose(
        neurosim_curve(60.0 - n, 60, a_down, 1e-6, 5e-6), found["depression"].at(n), atol=1e-3 * 4e-6
    )
    assert float(p["maxConductance"]) == 5e-6


def test_write_noise_is_a_share_of_the_range() -> None:
    share = float(parameters(pulsed(noise=2e-8))["sigmaCtoC"].split(" * ")[0])
    assert share == pytest.approx(2e-8 / 4e-6, rel=0.25)


def test_labels_stay_within_the_table_and_it_is_said() -> None:
    tree = pulsed()
    node = tree["pulse"].to_dataset()
    tree["pulse"] = node.assign(shape=node["shape"].copy(data=[60.0, 1.5]))
    assert label(directions(tree)["potentiation"]) == 9.0
    assert any("where NeuroSim's table ends" in sentence for sentence in member.omits(tree))


def test_read_noise_and_drift() -> None:
    tree = drifting()
    p = parameters(tree)
    middle = np.sqrt(5e-7 * 2.5e-6)
    assert float(p["sigmaReadNoise"]) == pytest.approx(0.02 * (middle / 1e-6) ** -0.5)
    assert ("resistanceOn", "400000", "[ohm]") in dnn(tree)
    assert "--onoffratio 5" in options(tree)["inference"]
    assert "--v 0.04 --t TIME/10s" in options(tree)["inference"]


@pytest.mark.parametrize("text", ["ends with a backslash \\", "trigraph ??/", "two\nlines", "*/ #include <x>", ""])
def test_a_comment_is_one_line_of_comment(text) -> None:
    line = comment(text)
    assert "\n" not in line
    assert not line.endswith(("\\", "??/"))
    assert line.startswith("//") or not line


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_a_compiler_takes_the_block(tmp_path) -> None:
    tree = pulsed()
    tree.attrs |= {"name": "x\\", "citation": "*/ } int main() { return 1; } ??/\n#error no"}
    (path,) = member.write(tree, tmp_path)
    text = path.read_text()
    names = sorted(set(re.findall(r"^(\w+) = ", text, flags=re.MULTILINE)))
    program = "#include <cstdio>\n" + "\n".join(f"double {name};" for name in names)
    program += f'\nint main() {{\n#include "{path.name}"\nprintf("%.9g %.9g", NL_LTP, sigmaCtoC); }}\n'
    (tmp_path / "main.cpp").write_text(program)
    subprocess.run(["g++", "-trigraphs", "-o", "run", "main.cpp"], cwd=tmp_path, check=True, capture_output=True)
    out = subprocess.run([tmp_path / "run"], capture_output=True, text=True, check=True).stdout.split()
    p = parameters(tree)
    assert float(out[0]) == pytest.approx(float(p["NL_LTP"]))
    assert float(out[1]) == pytest.approx(float(p["sigmaCtoC"].split(" * ")[0]) * 4e-6, rel=0.02)


def test_without_pulses_the_range_is_left() -> None:
    (text,) = member.contents(full_device()).values()
    assert "maxConductance = " in text
    assert "NL_LTP" not in text
