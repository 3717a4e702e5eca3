"""Resistance states in words."""

STATE_NAMES = {"lrs": "low-resistance state (lrs)", "hrs": "high-resistance state (hrs)", "all": "all curves"}


def state_name(state: str) -> str:
    """Return a state's name in words."""
    return STATE_NAMES.get(state, state)
