"""How a family (reader, I-V model, nonideality, exporter, command) finds its members: by folder.

A member is one file. Its name is the file's name with hyphens (`poole_frenkel.py` is `poole-frenkel`), so that the
names of a family are known without importing any of its members; the file sets the module attribute `member`,
whose `name` repeats that name.
"""

import importlib
from pathlib import Path
from typing import Any

from calib.errors import CalibError, OptionError

_BASE_MODULES = {"base", "console"}


def names(package: str) -> list[str]:
    """Return the names of the members of a family, sorted, without importing them.

    The folders of the package's `__path__` are searched; appending a folder to it adds that folder's members.
    """
    folders = [Path(folder) for folder in importlib.import_module(package).__path__]
    stems = {file.stem for folder in folders for file in folder.glob("*.py")}
    return sorted(stem.replace("_", "-") for stem in stems if not stem.startswith("_") and stem not in _BASE_MODULES)


def load(package: str, name: str, requires: tuple[str, ...] = ()) -> Any:
    """Return the member called `name` of a family.

    Parameters
    ----------
    package : the family's package, for example ``calib.iv_models``.
    name : one of `names(package)`.
    requires : attributes that the member must have.

    Raises
    ------
    OptionError
        When there is no such member; the message lists those that there are.
    CalibError
        When the member's file cannot be imported, defines no `member`, lacks an attribute, or gives another name.
    """
    family = package.rpartition(".")[2]
    known = names(package)
    if name not in known:
        raise OptionError(f"there is no '{name}' in {family}; found: {', '.join(known)}")
    module_name = f"{package}.{name.replace('-', '_')}"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # any failure of a member names the culprit
        raise CalibError(f"'{module_name}' of the family {family} cannot be imported: {error}") from error
    member = getattr(module, "member", None)
    if member is None:
        raise CalibError(f"'{module_name}' of the family {family} defines no 'member'; set member = ... in that file")
    missing = [attribute for attribute in ("name", *requires) if not hasattr(member, attribute)]
    if missing:
        raise CalibError(f"the member of '{module_name}' lacks {', '.join(missing)}; see the base class of {family}")
    if member.name != name:
        raise CalibError(
            f"the member of '{module_name}' calls itself '{member.name}'; it must be '{name}', as its file"
        )
    return member


def load_all(package: str, requires: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return all members of a family by name."""
    return {name: load(package, name, requires) for name in names(package)}
