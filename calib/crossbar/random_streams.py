"""Generators whose state follows from names and numbers alone."""

import hashlib

import torch


def generator(*key: int | str, device: torch.device | str | None = None) -> torch.Generator:
    """Return a generator whose state follows from `key` alone, for example (seed, layer, chip, 'stuck')."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator(device or "cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
