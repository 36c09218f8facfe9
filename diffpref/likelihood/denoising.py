"""The likelihood of a denoiser: ``logps = -0.5 * kappa(t) * mean((prediction - target)^2)``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpref.core.contracts import Rows, Tensors
from diffpref.core.errors import ConfigError, ShapeError, suggest
from diffpref.core.vocabulary import Name, parse
from diffpref.likelihood._gathering import gather
from diffpref.likelihood._registry import registry
from diffpref.likelihood.weighting import WEIGHTINGS, NoiseSchedule, Weighting, kappa

__all__ = ["NO_FRAMES", "DenoisingLikelihood"]

SCALARS = ("logps", "log_ratio", "errors", "collision")
AGREEMENT = -0.5 * math.log(2)
"""Of two draws of a unit Gaussian, an element; the constant that log-likelihoods leave out is left out here too."""
ASKED = ("target", "noisy")  # read off the question, whatever models answer
NO_LENGTH = "a denoiser's samples have no length; choose an objective, or options of it, that needs none"
NO_SEGMENTS = "segments are the frames of a video, which a picture has not; its units are its draws: token"
POINTS = "segment_kl"
NO_POINTS = (
    "a segment of it is a point of an inverted trajectory, which only the method inversion_dpo makes; kl and token_kl"
    " are given of others"
)
FRAMES = (*SCALARS, "mask")
NO_FRAMES: Mapping[str, str] = MappingProxyType({f"segment_{quantity}": NO_SEGMENTS for quantity in FRAMES})
"""What families of pictures lack, and why."""


@registry.register("denoising")
@dataclass(frozen=True)
class DenoisingLikelihood:
    """Surrogate log-likelihoods from squared errors, for epsilon, v, clean-data and velocity prediction.

    The 0.5 and the mean over elements are those of the official Diffusion-DPO code, so text DPO on these numbers is its
    loss at the same beta. The mean and the constant weight are absorbed in beta:
    ``beta = 2 * num_train_timesteps * mean(k) * D * beta_in_nats`` (5000 on SDXL at 1024 pixels is 0.0058 in nats).

    Args:
        schedule: what the network predicts, and the weights at each timestep.
        weighting: see `diffpref.likelihood.weighting.kappa`. ``"elbo"`` gives nats: set beta near 0.01.
        snr_gamma: the gamma of ``weighting="min_snr"``.
        trained: roles into which gradients flow.
        unit_dims: dimensions of a prediction that are frames, none of a picture's.

    Raises:
        ConfigError: an unknown weighting, or a gamma that is not positive.
    """

    schedule: NoiseSchedule
    weighting: Weighting = "simple"
    snr_gamma: float = 5.0
    trained: frozenset[str] = frozenset({"policy"})
    unit_dims: tuple[int, ...] = ()

    from_raw: ClassVar[frozenset[str]] = frozenset({*SCALARS, "token_mask", *ASKED}) | {
        f"token_{quantity}" for quantity in SCALARS
    }
    provides: ClassVar[frozenset[str]] = from_raw | {"kl", "token_kl", "prediction"} | NO_FRAMES.keys()
    raw_names: ClassVar[tuple[str, ...]] = ("errors",)

    lacks: ClassVar[Mapping[str, str]] = MappingProxyType({"length": NO_LENGTH, POINTS: NO_POINTS})

    @classmethod
    def build(cls, family: Any, settings: Any, trained: frozenset[str]) -> DenoisingLikelihood:
        """Return the likelihood of a denoiser's schedule with the settings ``weighting`` and ``snr_gamma``."""
        return cls(family.schedule, settings.weighting, settings.snr_gamma, trained, family.unit_dims)

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            hint = suggest(self.weighting, WEIGHTINGS) or ";"
            raise ConfigError(f"likelihood.weighting: unknown '{self.weighting}'{hint} known: {', '.join(WEIGHTINGS)}")
        if not self.snr_gamma > 0:
            raise ConfigError(f"likelihood.snr_gamma: must be > 0, got {self.snr_gamma}")

    def __call__(self, names: Sequence[str], outputs: Mapping[str, Tensors], rows: Rows) -> dict[str, Tensor]:
        """Return a tensor for each name, float32, or float64 where predictions and targets are.

        - ``<role>_<group>_errors``: mean squared error of the native prediction over all but the batch dimension.
        - ``<role>_<group>_logps``: -0.5 * kappa * errors.
        - ``<role>_<group>_collision``: what a model's own samples have for logps on average, in a sense: the
          log-probability density that two draws of a Gaussian around its prediction agree, -ln 2 / 2 an element.
        - ``<group>_log_ratio``, ``<role>_<group>_log_ratio``: logps of the policy, or of the role, minus the
          reference's.
        - ``<group>_kl``, ``<role>_<group>_kl``: 0.5 * kappa * mean squared difference of the predictions of the policy,
          or of the role, and the reference: KL(reference || policy) of two Gaussian steps of equal variance, weighted
          as the error is; not from a bank.
        - ``<role>_<group>_prediction``: what the network said, (B, ...); only of a single draw, and not from a bank.
        - ``<group>_target`` and ``<group>_noisy``: what a perfect network would say, and what it is shown, (B, ...); of
          a single draw.

        Each other is (B,) or, for ``list``, (B, K): row ``rows.groups[group]`` of the flat batch, for pointwise names
        ``rows.groups[""]``. Where a row is absent (-1) the value is 0 without gradient, so mask it.

        With ``rows.draws`` = n the flat batch holds the draws one after another (draw-major): row numbers count within
        the first N / n rows, row r of draw d is ``d * N / n + r``, and logps, errors and kl are means over the n draws.
        These draws are the units of a denoiser: ``<group>_token_log_ratio``, and the others with ``token`` before the
        quantity, are (B, n), or (B, K, n), one number a draw, and ``<group>_token_mask`` says 1 where there is one. A
        sum over units is n times the value of the whole.

        Of a video ``segment`` before the quantity means its latent frames: ``<group>_segment_log_ratio`` and the others
        are (B, F), or (B, K, F), means over the draws, and ``<group>_segment_mask`` says 1 where there is a frame. The
        mean over frames is the value of the whole; every frame has the whole's timestep and weight. Not from a bank.

        ``<group>_segment_kl`` is of rows whose draws are the points of a trajectory, with a weight each in
        ``inputs["point_weight"]``: (B, n), kl with that weight in place of kappa.

        Gradient flows into the trained roles alone, and not into groups of ``rows.no_grad``.

        Args:
            names: vocabulary names of the above forms.
            outputs: role -> ``{"prediction": (N, ...)}``, or what `raw` made of it.
            rows: ``inputs["target"]`` (N, ...) and ``inputs["timesteps"]`` (N,).

        Raises:
            ConfigError: a name asks for what a denoiser does not provide, or for a role or group that is not there.
            ShapeError: prediction, target and timesteps do not fit each other.
        """
        parsed = [self._check(parse(name), rows) for name in names]
        errors: dict[tuple[str, bool], Tensor] = {}
        logps: dict[tuple[str, bool], Tensor] = {}
        for role, framed in sorted({(role, _is_framed(name)) for name in parsed for role in name.roles}):
            if role not in outputs:
                raise ConfigError(f"likelihood 'denoising': {', '.join(names)} needs role '{role}', which did not run")
            answers = outputs[role]
            error = self._frame_errors(answers, rows, role) if framed else self.raw(answers, rows, role)["errors"]
            error = error if role in self.trained else error.detach()
            weight = self._kappa(rows).to(error.dtype).view(-1, *[1] * (error.dim() - 1))
            errors[role, framed], logps[role, framed] = error, -0.5 * weight * error
        result = {}
        for name in parsed:
            role, index, framed = name.role or "policy", rows.groups[name.group], _is_framed(name)
            if name.quantity == "mask":
                units = self._num_frames(rows) if framed else rows.draws
                result[str(name)] = (index >= 0).float().unsqueeze(-1).expand(*index.shape, units)
                continue
            if name.quantity in ASKED:
                result[str(name)] = gather(self._single(rows.inputs[name.quantity], name, rows), index)
                continue
            reduced = _split_draws if name.unit == "token" else _mean_draws
            if name.quantity == "prediction":
                values = self._prediction(name, outputs[role], rows)
            elif name.form == POINTS:
                values = _split_draws(self._kl(name, role, outputs, rows, rows.inputs["point_weight"]), rows)
            elif name.quantity == "kl":
                values = reduced(self._kl(name, role, outputs, rows, self._kappa(rows)), rows)
            elif name.quantity == "log_ratio":
                values = reduced(logps[role, framed], rows) - reduced(logps["reference", framed], rows)
            elif name.quantity == "collision":
                values = reduced(torch.full_like(errors[role, framed].detach(), AGREEMENT), rows)
            else:
                values = reduced((errors if name.quantity == "errors" else logps)[role, framed], rows)
            values = values.detach() if name.group in rows.no_grad else values
            result[str(name)] = gather(values, index)
        return result

    def _kl(self, name: Name, role: str, outputs: Mapping[str, Tensors], rows: Rows, weight: Tensor) -> Tensor:
        """Return (N,) divergences of a role from the reference, whose own weights they leave alone."""
        if any("prediction" not in outputs[one] for one in (role, "reference")):
            raise ConfigError(f"likelihood 'denoising': '{name}' needs the whole answers of two roles, not from a bank")
        own, reference = outputs[role]["prediction"], outputs["reference"]["prediction"].detach()
        own = own if role in self.trained else own.detach()
        dtype = torch.promote_types(torch.promote_types(own.dtype, reference.dtype), torch.float32)
        apart = (own.to(dtype) - reference.to(dtype)).square().flatten(1).mean(dim=1)
        return 0.5 * weight.to(dtype) * apart

    def _prediction(self, name: Name, answers: Tensors, rows: Rows) -> Tensor:
        if "prediction" not in answers:
            raise ConfigError(f"likelihood 'denoising': '{name}' needs the role's whole answer, not a bank's")
        values = self._single(answers["prediction"], name, rows)
        return values if name.role in self.trained else values.detach()

    def _single(self, values: Tensor, name: Name, rows: Rows) -> Tensor:
        """Return whole tensors of a single draw in float32, or float64 where they are."""
        if rows.draws != 1:
            raise ConfigError(f"likelihood 'denoising': '{name}' is of a single draw; set the method's draws to 1")
        return values.to(torch.promote_types(values.dtype, torch.float32))

    def _check(self, name: Name, rows: Rows) -> Name:
        points = name.form == POINTS and "point_weight" in rows.inputs
        if (name.form not in self.provides and not points) or (
            name.kind != "model" and name.quantity not in ("mask", *ASKED)
        ):
            known = self.lacks.get(name.form) or (
                f"it provides {', '.join(sorted(self.provides))}, with a role (log_ratio and kl without one compare"
                " policy and reference)"
            )
            raise ConfigError(f"likelihood 'denoising' does not provide '{name}'; {known}")
        if name.unit == "segment" and not (self.unit_dims or points):
            raise ConfigError(f"likelihood 'denoising' does not provide '{name}'; {NO_SEGMENTS}")
        if name.group not in rows.groups:
            raise ConfigError(f"'{name}' needs group '{name.group}'; the method prepared {', '.join(rows.groups)}")
        return name

    def raw(self, answers: Tensors, rows: Rows, role: str = "a role") -> dict[str, Tensor]:
        """Return ``errors``, (N,): the mean squared error of each row, which is all that the likelihood reads.

        Args:
            answers: ``prediction`` (N, ...), or already ``errors``.
            rows: the question.
            role: for the message.

        Raises:
            ShapeError: prediction, target and timesteps do not fit each other.
        """
        if "errors" in answers:
            return {"errors": answers["errors"]}
        return {"errors": self._squares(answers["prediction"], rows, role).flatten(1).mean(dim=1)}

    def _frame_errors(self, answers: Tensors, rows: Rows, role: str) -> Tensor:
        """Return (N, F): the mean squared error of each latent frame."""
        if "prediction" not in answers:
            raise ConfigError(f"likelihood 'denoising': segments of '{role}' need its whole answers, not a bank's")
        squares = self._squares(answers["prediction"], rows, role)
        within = [dim for dim in range(1, squares.dim()) if dim not in self.unit_dims]
        return squares.mean(dim=within).flatten(1)

    def _num_frames(self, rows: Rows) -> int:
        return math.prod(rows.inputs["target"].shape[dim] for dim in self.unit_dims)

    @staticmethod
    def _squares(prediction: Tensor, rows: Rows, role: str) -> Tensor:
        target, timesteps = rows.inputs["target"], rows.inputs["timesteps"]
        if prediction.shape != target.shape or timesteps.shape != target.shape[:1]:
            raise ShapeError(
                f"likelihood 'denoising': prediction of '{role}' {tuple(prediction.shape)} and target "
                f"{tuple(target.shape)} must be equal, timesteps {tuple(timesteps.shape)} one a row"
            )
        # In half precision the difference of two errors near 0.2 is off by 1e-4, which beta multiplies by thousands.
        dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
        return (prediction.to(dtype) - target.to(dtype)).square()

    def _kappa(self, rows: Rows) -> Tensor:
        target = rows.inputs["target"]
        return kappa(
            self.weighting,
            self.schedule if rows.schedule is None else rows.schedule,
            rows.inputs["timesteps"],
            snr_gamma=self.snr_gamma,
            num_elements=target[0].numel(),
        )


def _is_framed(name: Name) -> bool:
    """Whether a name is of latent frames; the segments of a divergence are points of a trajectory."""
    return name.unit == "segment" and name.form != POINTS


def _mean_draws(values: Tensor, rows: Rows) -> Tensor:
    return values if rows.draws == 1 else _by_draw(values, rows).mean(dim=0)


def _split_draws(values: Tensor, rows: Rows) -> Tensor:
    return _by_draw(values, rows).T


def _by_draw(values: Tensor, rows: Rows) -> Tensor:
    if len(values) % rows.draws:
        raise ShapeError(f"likelihood 'denoising': {len(values)} rows cannot hold {rows.draws} draws each")
    return values.unflatten(0, (rows.draws, -1))
