"""What `headline_methods.py` compares: tracks of a model each, and the rows of each track.

A row is a method with the data that its own procedure asks for. Beta and learning rate are no part of it: a search on
other captions finds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["EARLIER", "KINDS", "TRACKS", "Kind", "Row", "Track"]

Kind = Literal["pairs", "captions", "lists"]
"""Data of a row: candidates of one model scored by one reward; these with captions; Syn-Pic lists."""
KINDS: tuple[Kind, ...] = ("pairs", "captions", "lists")
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
        records: of an update; 8 pairs are 16 samples, as are 4 lists of four.
        options: of the objective, besides beta.
        reads: how the data are read, values of a recipe's section ``data``.
        control: no method of its own.
        curve: also judged when a quarter and half of the budget are spent.
    """

    method: Mapping[str, Mapping[str, Any]]
    objective: str
    own: str
    data: Kind = "pairs"
    records: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, Any] = field(default_factory=dict)
    control: bool = False
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
class Track:
    """A model, what it is trained and judged on, and who takes part.

    Args:
        title: heads the section.
        recipe: of the round that says model, sampler and adapter; nothing is guided here.
        rows: name -> row; the first is Diffusion-DPO's kind, whose search leaves the earlier checkpoint of the lists.
        budget: forwards of the denoiser that a run may spend, those of reference, inversion and sampling included.
        trained_on: captions whose candidates are learnt from.
        judged_on: captions that decide, none of them among the others.
        search_trained_on: captions that the search learns from.
        searched_on: captions that decide the search.
        grid: pairs of beta and learning rate, the same for all rows.
        rewards: that score candidates.
        sources: of the lists, as in a recipe of generation.
        curve: captions that the learning curve is drawn from, the first of ``judged_on``.
        draws: samples of each judged caption and seed.
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
    sources: tuple[Mapping[str, Any], ...] = ()
    curve: int = 50
    draws: int = 1


def _bundled(*names: str) -> tuple[dict[str, dict[str, str]], ...]:
    return tuple({name: {"path": f"bundled:shapes-{name}"}} for name in names)


DROPPED = {"empty_prompt_prob": 0.1}
WEIGHED = {"weight_from": "beta_scale"}
SDXL = {"family": "sdxl", "path": "bundled:shapes-sdxl"}
SD3 = {"family": "sd3", "path": "bundled:shapes-sd3", "max_sequence_length": 16}

DPO = Row({"diffusion_dpo": DROPPED}, "dpo", "best and worst of four by PickScore, random noise", curve=True)
RANK_DPO = Row(
    {"rank_dpo": {}},
    "rank_dpo",
    "Syn-Pic: four pictures of three models (SDXL, SD3, an earlier checkpoint), wins by PickScore and CLIP",
    data="lists",
    records=4,
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
                {"ddim_inpo": {"num_steps": 10, "landing": "exact", **DROPPED}},
                "ddim_inpo",
                "noise by DDIM inversion, 10 levels, eta 0.1",
                curve=True,
            ),
            "smpo_diffusion": Row(
                {"smpo_diffusion": {"num_steps": 5, "landing": "exact", **DROPPED}},
                "smpo_diffusion",
                "noise by ReNoise inversion, 5 levels; each pair counts by how sure PickScore is",
                options=WEIGHED,
                curve=True,
            ),
            "rank_dpo": RANK_DPO,
            "dpo_on_lists": Row(
                {"diffusion_dpo": DROPPED},
                "dpo",
                "control: Diffusion-DPO on best and worst of RankDPO's lists",
                data="lists",
                reads=BY_WINS,
                control=True,
            ),
            "seppo": Row(
                {"seppo": {"snapshot_every": 6, "num_inference_steps": 12, "guidance_scale": 1.0, **DROPPED}},
                "seppo",
                "winners alone; losers drawn by a snapshot of the policy, one kept each 6 updates",
            ),
            "dcpo": DCPO,
        },
        budget=5760,
        trained_on="shapes:seen:0-120",
        judged_on="shapes:unseen:0-150",
        search_trained_on="shapes:seen:160-240",
        searched_on="shapes:seen:300-348",
        grid=((500, 1e-3), (2000, 3e-4), (2000, 1e-3)),
        rewards=_bundled("pickscore", "clip"),
        sources=(
            {"name": "sdxl", "model": SDXL, "candidates": 2},
            {"name": "sd3", "model": SD3},
            {"name": "earlier", "model": SDXL, "weights": EARLIER},
        ),
    ),
    "flow": Track(
        title="Pictures by a flow: the bundled SD3-class pipeline",
        recipe="rounds/shapes_sd3",
        rows={
            "diffusion_dpo": DPO,
            "smpo_diffusion": Row(
                {"smpo_diffusion": {"num_steps": 5, "landing": "exact", **DROPPED}},
                "smpo_diffusion",
                "noise by ReNoise inversion of the flow, 5 levels; each pair counts by how sure PickScore is",
                options=WEIGHED,
                curve=True,
            ),
            "rank_dpo": RANK_DPO,
            "dcpo": DCPO,
        },
        budget=5760,
        trained_on="shapes:seen:0-120",
        judged_on="shapes:unseen:0-150",
        search_trained_on="shapes:seen:160-240",
        searched_on="shapes:seen:300-348",
        grid=((200, 3e-4), (200, 1e-3), (1000, 1e-3)),
        rewards=_bundled("pickscore", "clip"),
        sources=(
            {"name": "sd3", "model": SD3, "candidates": 2},
            {"name": "sdxl", "model": SDXL},
            {"name": "earlier", "model": SD3, "weights": EARLIER},
        ),
    ),
}
