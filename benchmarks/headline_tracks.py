"""What `headline_methods.py` compares: tracks of a model each, and the rows of each track.

A row is a method with the data that its own procedure asks for. Beta and learning rate are no part of it: a search on
other captions finds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["EARLIER", "TRACKS", "Kind", "Question", "Row", "Track"]

Kind = Literal["pairs", "captions", "lists", "guided"]
"""Data of a row: candidates of the track's model; these with captions; Syn-Pic lists; pairs from rendered clips."""
EARLIER = "EARLIER"
"""Stands for the checkpoint that the search of the track's first row has left."""
BY_WINS = {"score": ["pickscore", "clip"], "combine": "strict_win_fraction"}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        method: as in a recipe.
        objective: its name; beta comes from the search.
        own: what it has that Diffusion-DPO has not, in words.
        data: which.
        records: of an update: 16 pairs, or 8 lists of four, which are as many samples; 8 where a record costs so many
            forwards that there would be few updates.
        options: of the objective, besides beta.
        reads: how the data are read, values of a recipe's section ``data``.
        control: of which row this is a control, whose beta and learning rate it takes; "" is a method of its own.
        curve: also judged when a quarter and half of the budget are spent.
    """

    method: Mapping[str, Mapping[str, Any]]
    objective: str
    own: str
    data: Kind = "pairs"
    records: int = 16
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""
    curve: bool = False

    def changes(self, beta: float, rate: float) -> dict[str, Any]:
        """Return what the row changes in a training recipe, by dotted path."""
        (name, options) = next(iter(self.method.items()))
        return {
            "method": {name: dict(options)},
            "objective": [{self.objective: {"beta": beta, **self.options}}],
            "training.batch_size": self.records,
            "optim.learning_rate": rate,
            "optim.warmup_steps": 5,
            **{f"data.{key}": value for key, value in self.reads.items()},
        }


@dataclass(frozen=True)
class Question:
    """A row against another.

    Args:
        asked: in words.
        name: of the row.
        against: another row.
        mark: share of the budget after which the row is looked at.
        against_mark: that of the other.
    """

    asked: str
    name: str
    against: str = "diffusion_dpo"
    mark: str = "1"
    against_mark: str = "1"


@dataclass(frozen=True)
class Track:
    """A model, what it is trained and judged on, and who takes part.

    Args:
        title: heads the section.
        recipe: of the round that says model, sampler and adapter.
        rows: name -> row; the first is Diffusion-DPO's kind, whose search leaves the earlier checkpoint of the lists.
        budget: forwards of the denoiser that a run may spend, those of reference, inversion and sampling included.
        trained_on: captions whose candidates are learnt from.
        judged_on: captions that decide, none of them among the others.
        search_trained_on: captions that the search learns from.
        searched_on: captions that decide the search.
        grid: pairs of beta and learning rate, the same for all rows.
        rewards: that score candidates.
        candidates: of each caption.
        truths: rendered clips of each caption, of guided pairs.
        guidance: of every sampler, 1 is none; None: that of the round.
        sources: of the lists, as in a recipe of generation.
        curve: captions that the learning curve is drawn from, the first of ``judged_on``.
        draws: samples of each judged caption and seed.
        compared: rows with each other.
    """

    title: str
    recipe: str
    rows: Mapping[str, Row]
    budget: int
    trained_on: str
    judged_on: str
    search_trained_on: str
    searched_on: str
    grid: tuple[tuple[float, float], ...]
    rewards: tuple[Any, ...] = ()
    candidates: int = 4
    truths: int = 0
    guidance: float | None = 1.0
    sources: tuple[Mapping[str, Any], ...] = ()
    curve: int = 50
    draws: int = 1
    compared: tuple[Question, ...] = ()


def _bundled(*names: str) -> tuple[dict[str, dict[str, str]], ...]:
    return tuple({name: {"path": f"bundled:shapes-{name}"}} for name in names)


DROPPED = {"empty_prompt_prob": 0.1}
WEIGHED = {"weight_from": "beta_scale"}
SDXL = {"family": "sdxl", "path": "bundled:shapes-sdxl"}
SD3 = {"family": "sd3", "path": "bundled:shapes-sd3", "max_sequence_length": 16}

DPO = Row({"diffusion_dpo": DROPPED}, "dpo", "best and worst of four by PickScore, random noise", curve=True)
SMPO = Row(
    {"smpo_diffusion": {"num_steps": 5, "landing": "exact", **DROPPED}},
    "smpo_diffusion",
    "noise by ReNoise inversion, 5 levels; each pair counts by how sure PickScore is",
    records=8,
    options=WEIGHED,
    curve=True,
)
RANK_DPO = Row(
    {"rank_dpo": {}},
    "rank_dpo",
    "Syn-Pic: four pictures of three models (SDXL, SD3, an earlier checkpoint), wins by PickScore and CLIP",
    data="lists",
    records=8,
    reads=BY_WINS,
)
DCPO = Row(
    {"dcpo": {"caption_mode": "hybrid", "empty_prompt_prob": 0.0}},
    "dcpo",
    "a caption of what the winner shows; of what the loser shows, a paraphrase; both by rules",
    data="captions",
)

TRACKS = {
    "image": Track(
        title="Pictures: the bundled SDXL",
        recipe="rounds/shapes",
        rows={
            "diffusion_dpo": DPO,
            "ddim_inpo": Row(
                {"ddim_inpo": {"num_steps": 5, "landing": "exact", **DROPPED}},
                "ddim_inpo",
                "noise by DDIM inversion, 5 levels, eta 0.1",
                records=8,
                curve=True,
            ),
            "smpo_diffusion": SMPO,
            "rank_dpo": RANK_DPO,
            "dpo_on_lists": Row(
                {"diffusion_dpo": DROPPED},
                "dpo",
                "control: Diffusion-DPO, with its beta and learning rate, on best and worst of RankDPO's lists",
                data="lists",
                reads=BY_WINS,
                control="diffusion_dpo",
            ),
            "seppo": Row(
                {
                    "seppo": {
                        "snapshot_every": 10,
                        "num_inference_steps": 12,
                        "guidance_scale": 1.0,
                        "reencode": True,
                        **DROPPED,
                    }
                },
                "seppo",
                "winners alone; losers drawn by a snapshot of the policy, one kept each 10 updates",
                records=8,
            ),
            "dcpo": DCPO,
        },
        budget=9600,
        trained_on="shapes:seen:0-200",
        judged_on="shapes:unseen:0-150",
        search_trained_on="shapes:seen:200-320",
        searched_on="shapes:seen:320-400",
        grid=((2000, 1e-4), (2000, 3e-4), (8000, 1e-4), (8000, 3e-4)),
        rewards=_bundled("pickscore", "clip"),
        sources=(
            {"name": "sdxl", "model": SDXL, "candidates": 2},
            {"name": "sd3", "model": SD3},
            {"name": "earlier", "model": SDXL, "weights": EARLIER},
        ),
        compared=(
            Question("InPO within the same forwards: two thirds of the updates, a third of the pairs", "ddim_inpo"),
            Question("InPO from a third more pairs", "ddim_inpo", against_mark="0.25"),
            Question("SmPO within the same forwards: 40 % of the updates, a fifth of the pairs", "smpo_diffusion"),
            Question("SmPO from about as many pairs", "smpo_diffusion", against_mark="0.25"),
            Question("RankDPO above pairs of the same pictures", "rank_dpo", "dpo_on_lists"),
            Question("RankDPO above pairs of one model's pictures", "rank_dpo"),
            Question("SePPO near a paired method", "seppo"),
            Question("DCPO helps prompts to be followed", "dcpo"),
        ),
    ),
    "flow": Track(
        title="Pictures by a flow: the bundled SD3-class pipeline",
        recipe="rounds/shapes_sd3",
        rows={
            "diffusion_dpo": DPO,
            "smpo_diffusion": SMPO,
            "rank_dpo": RANK_DPO,
            "dcpo": DCPO,
        },
        budget=9600,
        trained_on="shapes:seen:0-200",
        judged_on="shapes:unseen:0-150",
        search_trained_on="shapes:seen:200-320",
        searched_on="shapes:seen:320-400",
        grid=((200, 1e-4), (200, 3e-4), (1000, 1e-4), (1000, 3e-4)),
        rewards=_bundled("pickscore", "clip"),
        sources=(
            {"name": "sd3", "model": SD3, "candidates": 2},
            {"name": "sdxl", "model": SDXL},
            {"name": "earlier", "model": SD3, "weights": EARLIER},
        ),
        compared=(
            Question("SmPO within the same forwards: half of the updates, a quarter of the pairs", "smpo_diffusion"),
            Question("SmPO from about as many pairs", "smpo_diffusion", against_mark="0.25"),
            Question("RankDPO above pairs of one model's pictures", "rank_dpo"),
            Question("DCPO helps prompts to be followed", "dcpo"),
        ),
    ),
    "video": Track(
        title="Clips: the bundled text-to-video model",
        recipe="rounds/shapes_video",
        rows={
            "video_dpo": Row(
                {"video_dpo": {}},
                "flow_dpo",
                "clips drawn from noise of their own, all pairs of four whose facts the oracle counts differently",
                reads={"pairing": "all_pairs"},
                records=8,
            ),
            "dense_dpo": Row(
                {"dense_dpo": {}},
                "dense_dpo",
                "guided pairs, two partial re-noisings of a rendered clip; the oracle judges each half second",
                data="guided",
                records=8,
                reads={"score": None},
            ),
            "seppo": Row(
                {"seppo": {"snapshot_every": 4, "num_inference_steps": 6, "guidance_scale": 7.0, "reencode": True}},
                "seppo",
                "the best of four alone; losers drawn by a snapshot of the policy, one kept each 4 updates",
                records=8,
            ),
        },
        budget=3072,
        trained_on="shapes_moving:seen:0-50",
        judged_on="shapes_moving:unseen+shapes_moving:seen:90-100",
        search_trained_on="shapes_moving:seen:50-70",
        searched_on="shapes_moving:seen:70-90",
        grid=((500, 1e-4), (500, 3e-4), (2000, 1e-4), (2000, 3e-4)),
        rewards=("oracle",),
        truths=2,
        guidance=None,
        compared=(
            Question("DenseDPO against pairs of whole clips", "dense_dpo", "video_dpo"),
            Question("SePPO near a paired method", "seppo", "video_dpo"),
        ),
    ),
}
