"""Which attention kernel a network runs."""

from __future__ import annotations

import importlib.util
import logging

from diffpref.core.errors import ConfigError
from diffpref.models.base import Network

__all__ = ["attention_names", "set_attention"]

logger = logging.getLogger(__name__)


def set_attention(network: Network, backend: str) -> str:
    """Choose the kernel and return the one in force.

    Args:
        network: a model of diffusers or transformers.
        backend: ``native`` is torch's scaled_dot_product_attention; ``xformers`` falls back to it with a one-line
            warning where xformers is missing or does not run on this device; ``auto`` is native, which is as fast and
            as frugal on every device that torch supports; for language models it is native on tokens without padding,
            see `diffpref.models.packing`.

    Raises:
        ConfigError: another name.
    """
    if backend not in ("auto", "native", "xformers"):
        raise ConfigError(f"model.attention: must be auto, native or xformers, got '{backend}'")
    if not hasattr(network, "set_attn_processor"):  # transformers, or a head of ours
        if backend == "xformers":
            raise ConfigError("model.attention: language models and scorers take auto or native, got 'xformers'")
        if not hasattr(network, "set_attn_implementation"):
            return "none"
        if backend == "native" or not network.can_generate():
            network.set_attn_implementation("sdpa")
            return "native"
        from diffpref.models.packing import attach

        return "rows" if attach(network) else "native"
    from diffusers.models.attention_processor import AttnProcessor2_0, JointAttnProcessor2_0

    # of two streams, text and image, for transformers of SD3's kind
    joint = any("Joint" in name for name in attention_names(network))
    if backend == "xformers":
        try:
            network.enable_xformers_memory_efficient_attention()
            return "xformers"
        except (ImportError, ModuleNotFoundError, ValueError, NotImplementedError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            if importlib.util.find_spec("xformers") is None:
                reason = "not installed; pip install 'diffpref[xformers]'"
            logger.warning("attention: xformers is not usable here (%s); using native", reason)
    network.set_attn_processor(JointAttnProcessor2_0() if joint else AttnProcessor2_0())
    return "native"


def attention_names(network: Network) -> list[str]:
    """Return the names of the kernels that a network runs."""
    if hasattr(network, "attn_processors"):
        return sorted({type(processor).__name__ for processor in network.attn_processors.values()})
    return [str(getattr(network.config, "_attn_implementation", ""))]
