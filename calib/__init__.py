"""calib: from raw measurements of memristive devices to device models, cards and trained networks.

Importing calib is cheap: torch, matplotlib and pandas are imported when they are first needed.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "read": "calib.reading",
    "fit": "calib.calibrate",
    "open_device": "calib.device_model",
    "save_device": "calib.device_model",
    "sample_model": "calib.sampling",
    "validate": "calib.validation",
    "export": "calib.exporters",
    "diff": "calib.model_diff",
    "train": "calib.training",
    "evaluate": "calib.evaluation",
    "pareto": "calib.pareto_front",
    "budget": "calib.budget",
    "requirements": "calib.requirements",
    "nn": "calib.nn",
    "report": "calib.report",
    "compare": "calib.comparison",
}

__all__ = ["CalibError", "__version__", *_LAZY]

from calib.errors import CalibError  # noqa: E402


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'calib' has no attribute '{name}'")
    module = importlib.import_module(_LAZY[name])
    return module if _LAZY[name] == f"calib.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
