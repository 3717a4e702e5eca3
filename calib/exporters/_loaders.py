"""Programs that are written beside a simulator's data: importable, without user text, and without need of calib."""

from importlib import resources

from calib.exporters.base import slug


def module_name(name: str, target: str) -> str:
    """Return the file name of a Python module for a device's name: it can be imported."""
    stem = slug(name).replace("-", "_")
    stem = stem if stem[0].isalpha() else f"device_{stem}"
    return f"{stem}_{target}.py"


def loader(target: str, data_file: str, identity: str) -> str:
    """Return the text of a loader: the module `_<target>_loader.py` of this folder, with its data file's name.

    Parameters
    ----------
    data_file : a name as `slug` makes it.
    """
    text = resources.files("calib.exporters").joinpath(f"_{target}_loader.py").read_text(encoding="utf-8")
    text = text.replace('DATA_FILE = ""', f'DATA_FILE = "{data_file}"')
    lines = text.splitlines(keepends=True)
    while lines[0].startswith("# "):  # remarks to the checkers of this project
        del lines[0]
    return f"# device model {identity}\n" + "".join(lines)
