"""The term that keeps the chosen sample likely, as the codes normalise it: over tokens of the batch, of a response, or
not at all.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffpref.core.errors import ConfigError

__all__ = ["Normalization", "imitation"]

Normalization = Literal["token_mean_batch", "token_mean_seq", "seq_sum"]
"""Negative log-likelihood divided by the tokens of the batch (each token weighs the same), of its own response (each
response weighs the same), or by nothing."""


def imitation(
    name: str, normalization: Normalization, logps: Tensor, length: Tensor | None, preference: Tensor | None
) -> Tensor:
    """Return the (B,) negative log-likelihoods of the chosen samples, whose mean over the batch is meant.

    Args:
        name: of the objective that asks, for the error.
        normalization: ``"token_mean_batch"`` gives every record the number of the batch.
        logps: (B,) log-likelihoods of the chosen samples.
        length: (B,) their tokens.
        preference: (B,) P(chosen is better), which weights a record's log-likelihood; 1 where not given.

    Raises:
        ConfigError: there are no lengths to divide by.
    """
    weighted = logps if preference is None else preference * logps
    if normalization == "seq_sum":
        return -weighted
    if length is None:
        raise ConfigError(
            f"{name}: nll={normalization} needs the column chosen_length; set nll=seq_sum to add log-likelihoods as"
            " they are"
        )
    if normalization == "token_mean_seq":
        return -weighted / length
    return (-weighted.sum() / length.sum()).expand_as(logps)
