"""What is installed, what importing calib costs, and which module may import which."""

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement

import calib
from calib import data_folder
from calib.cli import main
from calib.errors import CalibError, ModelError

# Dependencies point one way: what each part may import. What those parts may import, it may import as well; modules
# that are not named here (errors, files, vision, a new helper) are looked through, so they cannot hide an arrow.
ARROWS: dict[str, set[str]] = {
    "reproduction": {"training", "evaluation", "fitting"},
    "budget": {"evaluation"},
    "requirements": {"budget"},
    "uncertainty": {"evaluation"},
    "robustness": {"evaluation", "fitting"},
    "report": {"evaluation", "energy", "budget", "requirements", "uncertainty", "robustness"},
    "evaluation": {"energy", "crossbar"},
    "training": {"evaluation", "energy", "crossbar"},
    "energy": {"crossbar"},
    "nn": {"crossbar"},
    "crossbar": {"nonidealities"},
    "nonidealities": {"device_model", "iv_models"},
    "exporters": {"device_model", "iv_models"},
    "validation": {"device_model", "fitting"},
    "calibrate": {"fitting", "device_model", "validation"},
    "fitting": {"sweeps", "iv_models", "measurement"},
    "readers": {"measurement"},
    "sweeps": {"measurement"},
    "measurement": {"units"},
    "device_model": {"iv_models"},
    "iv_models": set(),
    "units": set(),
    "plugins": set(),
    "files": set(),
    "errors": set(),
}
ABOVE_ALL = {"cli", "__main__", "quickstart"}  # may import everything, and nothing else imports them
# nn is the public face of crossbar, runs keeps the files of training.
TORCH_PARTS = {
    "nonidealities", "crossbar", "nn", "training", "evaluation", "energy", "runs",
    "averaging", "networks", "learned_scale", "moments", "moment_step", "pareto_front",
    "training_checks", "training_step",  # of training
    "results", "effects", "budget", "requirements", "uncertainty", "robustness", "robustness_figure", "attacks",
    "committee",
    "reproduction", "signal_to_noise",
}  # fmt: skip
TORCH_LAZILY = {"calib.fitting.least_squares", "calib.tensorboard"}

PACKAGE = Path(calib.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if "_data" not in path.parts and not path.stem.endswith("_loader")  # texts that cards carry to other programs
)


class Import(NamedTuple):
    module: str
    target: str
    lazy: bool
    line: int


def path_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def imports_of(module: str) -> list[Import]:
    """Return what a module imports; `from calib import idx` is an import of calib.idx."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    lazy_nodes = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [Import(module, target, id(node) in lazy_nodes, node.lineno) for target in targets]
    return found


def part_of(name: str) -> str:
    """The part of calib to which a name belongs: 'calib.fitting.iv.fit' -> 'fitting', 'calib.__version__' -> ''."""
    first = name.split(".")[1] if name.startswith("calib.") else ""
    return first if (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file() else ""


@functools.cache
def graph() -> dict[str, set[str]]:
    """The parts that each part imports, lazily or not."""
    edges: dict[str, set[str]] = {part_of(module): set() for module in MODULES if part_of(module)}
    for module in MODULES:
        for found in imports_of(module) if part_of(module) else ():
            if found.target.split(".")[0] == "calib" and part_of(found.target) not in ("", part_of(module)):
                edges[part_of(module)].add(part_of(found.target))
    return edges


def reached(part: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(edges.get(part, ()))
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(edges.get(current, ()))
    return seen


def test_the_rules_see_the_package() -> None:
    assert {"calib.errors", "calib.cli", "calib.cli.data", "calib.vision"} <= set(MODULES)
    assert "idx" in graph()["vision"]
    assert {"idx", "errors"} <= reached("vision", graph())


@pytest.mark.parametrize("part", sorted(ARROWS))
def test_dependencies_point_one_way(part: str) -> None:
    edges = graph()
    allowed = reached(part, ARROWS)
    forbidden = (reached(part, edges) & set(ARROWS)) - allowed - {part} - {"units", "plugins", "files", "errors"}
    culprits = [
        f"{found.module}:{found.line} imports {found.target}"
        for module in MODULES
        for found in imports_of(module)
        if part_of(found.target) in forbidden and part_of(module) in {part, *reached(part, edges)} - forbidden
    ]
    assert not culprits, f"{part} may depend on {sorted(allowed)} only"


def test_no_part_depends_on_itself_through_others() -> None:
    edges = graph()
    assert [part for part in edges if part in reached(part, edges)] == []


def test_nothing_imports_the_command_line() -> None:
    edges = graph()
    assert [part for part in edges if part not in ABOVE_ALL and edges[part] & ABOVE_ALL] == []


@pytest.mark.parametrize("module", MODULES)
def test_torch_is_imported_where_it_belongs(module: str) -> None:
    if part_of(module) in TORCH_PARTS:
        return
    culprits = [
        found
        for found in imports_of(module)
        if found.target.split(".")[0] == "torch" and not may_be_lazy(module, found)
    ]
    assert not culprits


def may_be_lazy(module: str, found: Import) -> bool:
    return found.lazy and (module in TORCH_LAZILY or part_of(module) in ABOVE_ALL)


def imported_by(statement: str) -> set[str]:
    """The top-level packages that a fresh Python has imported after a statement."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_calib_is_cheap() -> None:
    loaded = imported_by("import calib, calib.cli")
    assert "calib" in loaded
    assert loaded & {"torch", "matplotlib", "pandas", "pint", "sklearn", "scipy", "xarray"} == set()


def test_building_the_command_line_imports_no_torch() -> None:
    loaded = imported_by("import calib.cli; calib.cli.build_parser()")
    assert loaded & {"torch", "matplotlib", "sklearn"} == set()


def test_what_needs_no_torch_imports_none() -> None:
    modules = [m for m in MODULES if part_of(m) not in TORCH_PARTS | {"__main__"}]
    assert "torch" not in imported_by(f"import {', '.join(modules)}")


@pytest.mark.parametrize("family", ["nonidealities", "iv_models", "readers", "exporters"])
def test_listing_a_family_imports_no_torch(family: str) -> None:
    loaded = imported_by(f"import calib.plugins; assert calib.plugins.names('calib.{family}')")
    assert "torch" not in loaded


def test_public_names_are_listed() -> None:
    assert set(calib.__all__) <= set(dir(calib))
    with pytest.raises(AttributeError, match="module 'calib' has no attribute 'nothing'"):
        _ = calib.nothing


def test_version_agrees(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"calib {calib.__version__}\n"
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == calib.__version__
    assert citation["references"][0]["doi"] == "10.1002/advs.202105784"


def test_every_requirement_has_a_tested_version(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    canonical = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    for requirement in map(Requirement, texts):
        assert str(requirement.specifier).startswith(">="), requirement
        assert requirement.specifier.contains(canonical[requirement.name.lower()]), requirement


def test_shipped_folders_are_found_in_a_checkout(root: Path) -> None:
    assert data_folder.datasets_folder() == root / "datasets"
    assert data_folder.fitted_models_folder() == root / "fitted_models"


def test_bundled_models_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = installed(tmp_path, monkeypatch)
    (package / "_data" / "fitted_models").mkdir(parents=True)
    (package / "_data" / "fitted_models" / "siox.nc").touch()
    assert data_folder.bundled_model_names() == ["siox"]
    assert data_folder.bundled_model_path("siox") == package / "_data" / "fitted_models" / "siox.nc"
    with pytest.raises(ModelError, match="no bundled device model 'hfo2'; found: siox"):
        data_folder.bundled_model_path("hfo2")


def test_a_foreign_package_called_datasets_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch)
    (tmp_path / "datasets").mkdir()
    with pytest.raises(CalibError, match="the folder datasets is neither in .* install calib again"):
        data_folder.datasets_folder()


def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let calib seem to be installed in `site`."""
    (site / "calib").mkdir()
    monkeypatch.setattr(data_folder.importlib.resources, "files", lambda package: site / package)
    return site / "calib"


@pytest.mark.slow
def test_wheel_holds_the_data_and_one_package(tmp_path: Path, root: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"calib_memristor-{calib.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    information = f"calib_memristor-{calib.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"calib", information}
    assert f"{information}/licenses/LICENSE" in names
    assert "calib = calib.cli:main" in (tmp_path / "site" / information / "entry_points.txt").read_text(
        encoding="utf-8"
    )
    for folder in ("datasets", "fitted_models"):
        shipped = {path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file()}
        packed = {name.removeprefix("calib/_data/") for name in names if name.startswith(f"calib/_data/{folder}/")}
        assert packed == {name for name in shipped if "__pycache__" not in name}
    assert not [name for name in names if "__pycache__" in name or name.startswith("calib/tests")]
    code = "from calib import data_folder as d; print(d.fitted_models_folder(), len(d.bundled_model_names()))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    models = len(list((root / "fitted_models").glob("*.nc")))
    assert run.stdout.split() == [str(tmp_path / "site" / "calib" / "_data" / "fitted_models"), str(models)]
