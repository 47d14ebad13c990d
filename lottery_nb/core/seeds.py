"""Random numbers: each training draws its own, by name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
else:
    from .lazy import torch


def generator(*names) -> torch.Generator:
    """A generator on the CPU seeded by names, so that a training draws the same numbers wherever
    and beside whom it runs. Of its seed torch uses 32 bits: of tens of thousands of names two may
    share one, hardly ever two of one figure."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
