"""Where the shipped measurements and device models lie: beside the package in a checkout, inside it in a wheel."""

import importlib.resources
from pathlib import Path

from calib.errors import CalibError, ModelError


def datasets_folder() -> Path:
    """Return the folder of the raw measurement files that are shipped with calib."""
    return _folder("datasets")


def fitted_models_folder() -> Path:
    """Return the folder of the device models that are shipped with calib."""
    return _folder("fitted_models")


def bundled_model_names() -> list[str]:
    """Return the names of the shipped device models, sorted."""
    return sorted(path.stem for path in fitted_models_folder().glob("*.nc"))


def bundled_model_path(name: str) -> Path:
    """Return the file of the shipped device model called `name`.

    Raises
    ------
    ModelError
        When there is no such model; the message lists those that there are.
    """
    known = bundled_model_names()
    if name not in known:
        raise ModelError(f"there is no bundled device model '{name}'; found: {', '.join(known) or 'none'}")
    return fitted_models_folder() / f"{name}.nc"


def _folder(name: str) -> Path:
    package = Path(str(importlib.resources.files("calib")))
    inside, beside = package / "_data" / name, package.parent / name
    if inside.is_dir():
        return inside
    # Beside an installed package lie other packages, one of which may have the same name.
    if beside.is_dir() and (package.parent / "pyproject.toml").is_file():
        return beside
    raise CalibError(
        f"the folder {name} is neither in '{inside.parent}' nor in '{package.parent}'; install calib again"
    )
