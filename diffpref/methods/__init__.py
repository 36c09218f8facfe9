"""One file a paper: what is put before the models."""

from __future__ import annotations

from diffpref.core.contracts import Method
from diffpref.core.registry import Registry

__all__ = ["registry"]

registry: Registry[type[Method]] = Registry("method", "diffpref.methods")
