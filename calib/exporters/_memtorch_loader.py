# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Arguments for MemTorch of a measured device, from the data file that lies beside this module.

patch(model) turns a torch network into one of measured devices; model_params() are arguments of a memristor's class.
"""

import json
from pathlib import Path

import memtorch
import torch

DATA_FILE = ""
DATA = json.loads(Path(__file__).with_name(DATA_FILE).read_text(encoding="utf-8"))


def model_params(**more):
    """Return r_on and r_off, lognormal where programming spreads them, and `more` of the memristor's arguments."""
    params = dict(more)
    for name, part in DATA["resistance"].items():
        if part is None:
            raise ValueError(f"the device model does not state {name}")
        params[name] = part["mean"]
        if part["sigma"]:
            params[name] = memtorch.bh.StochasticParameter(
                distribution=torch.distributions.LogNormal, loc=part["loc"], scale=part["sigma"], min=part["min"],
                max=part["max"],
            )  # fmt: skip
    return params


def patch(model, memristor_model=None, time=None, **options):
    """Return the network with memristive layers, and the device's faults, states and drift (after `time` [s])."""
    from memtorch.bh.nonideality.NonIdeality import NonIdeality, apply_nonidealities
    from memtorch.mn.Module import patch_model

    memristor_model = memristor_model or memtorch.bh.memristor.VTEAM
    patched = patch_model(model, memristor_model=memristor_model, memristor_model_params=model_params(), **options)
    patched.tune_()
    chosen, arguments = [], {}
    if DATA["device_faults"] is not None:
        chosen.append(NonIdeality.DeviceFaults)
        arguments |= DATA["device_faults"]
    if DATA["conductance_states"] is not None:
        chosen.append(NonIdeality.FiniteConductanceStates)
        arguments["conductance_states"] = DATA["conductance_states"]
    if DATA["drift"] is not None and time is not None and time > DATA["drift"]["initial_time"]:
        from memtorch.bh.nonideality.endurance_retention_models.conductance_drift import model_conductance_drift

        chosen.append(NonIdeality.Retention)
        arguments |= {
            "time": time,
            "retention_model": model_conductance_drift,
            "retention_model_kwargs": dict(DATA["drift"]),
        }
    return apply_nonidealities(patched, non_idealities=chosen, **arguments) if chosen else patched
