"""DDIM-InPO (Lu et al., arXiv:2503.18454): pairs compared on latents that the model's own trajectory passes through.

Instead of adding random noise, a few steps of DDIM inversion lead from each sample to its noisy latent; the noise that
this implies, ``tau = (x_t - alpha_t x_0) / sigma_t``, is the target, so that denoising is one-step reconstruction of
the sample. The loss is Diffusion-DPO's, `ddim_inpo` under the paper's name, and its beta absorbs the same: the factor
1/2, the mean over latent elements, the number of timesteps and the weights of the ELBO, here besides the 1 / SNR(t) of
the reconstruction error (``likelihood.weighting: x0`` restores it). Published beta: 2000 (SD 1.5), 5000 (SDXL).

The official code gives every pair of a local batch the first one's timestep, right for its batches of one; here each
pair has its own. It is not Iterative Nash Policy Optimization, the objective ``inpo_nash``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffpref.methods import registry
from diffpref.methods._inverting import Inverting

__all__ = ["DDIMInPO"]


@registry.register("ddim_inpo", aliases=("inpo", "ddim-inpo"))
class DDIMInPO(Inverting):
    """Options of the method; the defaults are the official code's."""

    source: ClassVar[str] = (
        "Lu et al., InPO: Inversion Preference Optimization with Reparametrized DDIM for Efficient Diffusion Model"
        " Alignment, CVPR 2025, arXiv:2503.18454"
    )
    evidence: ClassVar[str] = "official"

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("ddim_inpo", {})]
