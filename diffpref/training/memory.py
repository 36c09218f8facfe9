"""How much memory this process holds."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

__all__ = ["memory_bytes"]

STATM = Path("/proc/self/statm")


def memory_bytes(device: torch.device) -> float:
    """Return bytes: the most that tensors have held at once on a GPU; else what the process holds in RAM now.

    Where the system does not tell the present size (no ``/proc``), its peak is returned.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if STATM.exists():
        return float(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else 1024 * peak
