"""Likelihoods by the name that a family carries: ``ModelFamily.likelihood``."""

from __future__ import annotations

from diffpref.core.contracts import Likelihood
from diffpref.core.registry import Registry

__all__ = ["registry"]

registry: Registry[type[Likelihood]] = Registry("likelihood", "diffpref.likelihood")
