"""What the nodes of a device model must hold; `calib.device_model` checks it."""

# node -> variable -> dimensions. A node may hold more; what stands here must be there.
REQUIRED: dict[str, dict[str, tuple[str, ...]]] = {
    "iv": {
        "state": ("state",),
        "parameter": ("parameter",),
        "quantile": ("quantile",),
        "transform": ("state", "parameter"),
        "intercept": ("state", "parameter"),
        "slope": ("state", "parameter"),
        "covariance": ("state", "parameter", "parameter_other"),
        "ln_r_quantile": ("state", "quantile"),
        "ln_r_mean": ("state",),
        "ln_r_std": ("state",),
        "ln_r_min": ("state",),
        "ln_r_max": ("state",),
        "n_curves": ("state",),
        "n_devices": ("state",),
    },
    "conductance": {"g_off": (), "g_on": ()},
    "programming": {
        "state": ("state",),
        "r_median": ("state",),
        "sigma": ("state",),
        "sigma_d2d": ("state",),
        "sigma_c2c": ("state",),
        "n_devices": ("state",),
    },
    "stuck": {
        "probability": (),
        "probability_bound": ("bound",),
        "n_devices": (),
        "n_stuck": (),
        "conductance": ("stuck_device",),
        "bandwidth": (),
    },
    "validation": {
        "coverage": ("level",),
        "coverage_bound": ("level", "bound"),
        "n_devices": ("state",),
    },
    "examples": {
        "voltage": ("example", "point"),
        "current": ("example", "point"),
        "example_state": ("example",),
        "example_device": ("example",),
    },
}
REQUIRED_ATTRS = {"iv": ("iv_model", "form", "reference_voltage", "v_min", "v_max")}
TEXT = {"state", "parameter", "transform", "example_state", "example_device"}
"""Variables of text; all others are numbers and state their units (counts called n_... may leave them out)."""
