"""Objectives of every kind train a language model by name: pairs, labelled answers, lists, tokens, joint quantities."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.config import build_recipe
from diffpref.core.vocabulary import parse
from diffpref.likelihood import TokenLikelihood
from diffpref.models import registry as families
from diffpref.objectives import registry
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]
ANSWERS = ("yes ", "no, never", "maybe not", "of course it is")

KINDS: dict[str, list[dict[str, Any]]] = {
    "pairs": [
        {"prompt": f"{n % 5}? ", "chosen": "yes " * (1 + n % 2), "rejected": "no, " * (1 + n % 3)} for n in range(8)
    ],
    "scored pairs": [
        {"prompt": f"{n}? ", "chosen": "yes", "rejected": "no, no", "chosen_score": 1 + n % 2, "rejected_score": 0}
        for n in range(8)
    ],
    "points": [{"prompt": f"{n}? ", "completion": ANSWERS[n % 4], "label": n % 2 == 0} for n in range(8)],
    "lists": [
        {"prompt": f"{n}? ", "completions": list(ANSWERS), "scores": [1, 0.5 - 0.1 * (n % 2), 0.25, 0.1 * n]}
        for n in range(8)
    ],
}
TRIED = {
    "dpo": "pairs",
    "simpo": "pairs",
    "ipo": "pairs",
    "orpo": "pairs",
    "cpo": "pairs",
    "bco_pair": "pairs",
    "tdpo1": "pairs",
    "tdpo2": "pairs",
    "sppo": "scored pairs",
    "kto": "points",
    "bco": "points",
    "lipo_lambda": "lists",
    "rank_dpo": "lists",
    "dpo_plackett_luce": "lists",
    "irpo_ranking": "lists",
    "oreo": "points",
    "sparsepo_activation": "pairs",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    family: Any = families.get("causal_lm").tiny()
    family.save_network(family.network, folder, None)
    return folder


@pytest.fixture
def text_keys(model: Path, tmp_path: Path) -> Keys:
    def make(objective: str, kind: str, size: int, steps: int = 3, **training: Any) -> dict[str, Any]:
        source = tmp_path / f"{kind}.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in KINDS[kind]))
        scored = {"score": "scores" if kind == "lists" else "score"} if kind in ("lists", "scored pairs") else {}
        return {
            "output": str(tmp_path / f"{objective}-{size}-{len(list(tmp_path.iterdir()))}"),
            "model": {"family": "causal_lm", "path": str(model)},
            "adapter": {"kind": "lora", "rank": 4},
            "data": {"source": str(source), **scored},
            "method": "language",
            "objective": objective,
            "optim": {"learning_rate": 3e-3},
            "training": {"steps": steps, "batch_size": size, "accumulation": 4 // size, **training},
        }

    return make


def run(keys: dict[str, Any]) -> tuple[Trainer, list[dict[str, float]]]:
    trainer = Trainer(build_recipe(keys))
    return trainer, list(trainer.steps())


def trained(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainer.updater.trained])


@pytest.mark.parametrize("objective", TRIED)
def test_an_objective_trains_by_name_and_is_exact_over_shares(text_keys: Keys, objective: str) -> None:
    (whole, expected), (other, rows) = (run(text_keys(objective, TRIED[objective], size)) for size in (4, 1))
    for row, wanted in zip(rows, expected, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-4, abs=1e-5)
        assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-3, abs=1e-5)
    assert expected[-1]["grad_norm"] > 0
    assert (trained(other) - trained(whole)).norm() <= 1e-3 * trained(whole).norm()


def test_a_joint_quantity_is_zero_at_the_start_and_grows(text_keys: Keys) -> None:
    trainer, _ = run(text_keys("tdpo2", "pairs", 4))
    rows = trainer.plan.method.prepare(trainer.batches.batch([(0, 0), (1, 0)]), trainer.updater.context)
    outputs = {name: trainer.roles[name](rows) for name in trainer.plan.asked}
    assert "states" in outputs["policy"] and "token_logps" not in outputs["policy"]
    values = trainer.updater.likelihood(["chosen_kl", "chosen_token_kl", "chosen_log_ratio"], outputs, rows)
    assert (values["chosen_kl"] > 0).all()
    torch.testing.assert_close(values["chosen_token_kl"].sum(dim=1), values["chosen_kl"])
    fresh = Trainer(build_recipe(text_keys("tdpo2", "pairs", 4)))
    fresh.setup()
    outputs = {name: fresh.roles[name](rows) for name in fresh.plan.asked}
    start = fresh.updater.likelihood(["chosen_kl", "chosen_log_ratio"], outputs, rows)
    assert start["chosen_kl"].abs().max() < 1e-5 and start["chosen_log_ratio"].abs().max() == 0


def test_a_role_that_no_joint_quantity_asks_answers_in_numbers(text_keys: Keys) -> None:
    trainer, _ = run(text_keys("dpo", "pairs", 4, steps=1))
    rows = trainer.plan.method.prepare(trainer.batches.batch([(0, 0)]), trainer.updater.context)
    assert {k: v.shape for k, v in trainer.roles["policy"](rows).items()} == {
        "token_logps": rows.inputs["labels"].shape
    }


def test_a_reference_free_objective_asks_no_reference(text_keys: Keys) -> None:
    trainer, _ = run(text_keys("simpo", "pairs", 4, steps=1))
    assert set(trainer.roles) == {"policy"}


def test_companions_stand_under_the_items_own_prompt(text_keys: Keys) -> None:
    trainer, _ = run(text_keys("kto", "points", 4, steps=1))
    batch = trainer.batches.batch([(0, 0), (1, 0), (2, 0), (3, 0)])
    own, other = batch.media[""], batch.media["mismatched"]
    assert torch.equal(own[:, :3], other[:, :3]) and not torch.equal(own, other)  # a prompt of three bytes
    rows = trainer.plan.method.prepare(batch, trainer.updater.context)
    assert rows.no_grad == {"mismatched"}


def served() -> list[str]:
    """Every objective whose names the token likelihood provides, and whose data the four kinds hold."""
    columns = {f"{side}_{what}" for side in ("chosen", "rejected") for what in ("score", "win_rate")}
    columns |= {"label", "list_scores", "list_win_rate", "ranks"}
    found = []
    for name in registry.names():
        names = [parse(tensor) for tensor in registry.get(name).spec.tensors]
        groups = {n.group for n in names}
        if not groups <= {"", "chosen", "rejected", "list", "mismatched"} or any(n.role == "previous" for n in names):
            continue
        if all(n.form in TokenLikelihood.provides or str(n) in columns for n in names):
            found.append(name)
    return found


def test_what_the_likelihood_provides_is_most_of_the_registry() -> None:
    assert len(served()) >= 0.6 * len(registry.names()) and set(TRIED) <= set(served())
