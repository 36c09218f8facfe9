"""Heads beside a language model: there when an objective names them, in a group of their own, saved and read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.config import build_recipe
from diffpref.core.errors import DiffprefError, ModelError
from diffpref.models import registry as families
from diffpref.models.heads import Heads, activation_weights, load_heads, save_heads
from diffpref.objectives import objective, registry
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints

Keys = Callable[..., dict[str, Any]]


def valued(*, token_log_ratio: Tensor, policy_token_value: Tensor, token_mask: Tensor, label: Tensor) -> Tensor:
    """As OREO: the value learns the label, the policy learns from the value as a constant."""
    gap = ((policy_token_value - label.unsqueeze(1)).square() * token_mask).sum(dim=1) / token_mask.sum(dim=1)
    advantage = (label - (policy_token_value.detach() * token_mask).sum(dim=1) / token_mask.sum(dim=1)).detach()
    return gap - 0.1 * advantage * (token_log_ratio * token_mask).sum(dim=1)


def masked(
    *,
    chosen_token_log_ratio: Tensor,
    rejected_token_log_ratio: Tensor,
    chosen_token_kl: Tensor,
    rejected_token_kl: Tensor,
    policy_chosen_token_weight: Tensor,
    policy_rejected_token_weight: Tensor,
    policy_chosen_token_kl_weight: Tensor,
    policy_rejected_token_kl_weight: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """As SparsePO with two masks."""
    reward = (policy_chosen_token_weight * chosen_token_log_ratio).sum(dim=1)
    reward = reward - (policy_rejected_token_weight * rejected_token_log_ratio).sum(dim=1)
    drift = (policy_rejected_token_kl_weight * rejected_token_kl).sum(dim=1)
    drift = drift - (policy_chosen_token_kl_weight * chosen_token_kl).sum(dim=1)
    return -logsigmoid(beta * (reward - drift))


def activated(
    *,
    chosen_token_log_ratio: Tensor,
    rejected_token_log_ratio: Tensor,
    reference_chosen_token_weight: Tensor,
    reference_rejected_token_weight: Tensor,
) -> Tensor:
    """As MaPO: masks from the reference's activations."""
    chosen = (reference_chosen_token_weight * chosen_token_log_ratio).sum(dim=1)
    return -logsigmoid(chosen - (reference_rejected_token_weight * rejected_token_log_ratio).sum(dim=1))


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    given: dict[str, Any] = {"kind": "token", "source": "ours", "evidence": "ours", "signs": {}}
    toys = {"toy_valued": valued, "toy_masked": masked, "toy_activated": activated}
    for name, function in toys.items():
        objective(name, **given)(function)
    yield
    for name in toys:
        del registry._things[name], registry._origins[name]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    family: Any = families.get("causal_lm").tiny()
    family.save_network(family.network, folder, None)
    return folder


@pytest.fixture
def text_keys(model: Path, tmp_path: Path) -> Keys:
    def make(objective: str, output: str = "run", **changes: Any) -> dict[str, Any]:
        rows: list[dict[str, Any]] = [
            {"prompt": f"{n}? ", "chosen": "yes " * (1 + n % 2), "rejected": "no, no"} for n in range(8)
        ]
        if objective == "toy_valued":
            rows = [{"prompt": f"{n}? ", "completion": ["yes", "no, no"][n % 2], "label": n % 2 == 0} for n in range(8)]
        source = tmp_path / f"{objective}.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {
            "output": str(tmp_path / output),
            "model": {"family": "causal_lm", "path": str(model)},
            "adapter": {"kind": "lora", "rank": 4, **changes.pop("adapter", {})},
            "data": {"source": str(source)},
            "method": "language",
            "objective": objective,
            "optim": {"learning_rate": 1e-2},
            "training": {"steps": 6, "batch_size": 4, **changes.pop("training", {})},
            **changes,
        }

    return make


def run(keys: dict[str, Any]) -> tuple[Trainer, list[dict[str, float]]]:
    trainer = Trainer(build_recipe(keys))
    return trainer, list(trainer.steps())


def test_a_value_head_learns_the_label_in_a_group_of_its_own(text_keys: Keys) -> None:
    keys = text_keys("toy_valued", adapter={"head_learning_rate_scale": 3}, training={"steps": 20, "batch_size": 8})
    trainer, rows = run(keys)
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-6)  # a value of 0, labels of 0 and 1
    assert rows[-1]["loss"] < 0.3 and "grad_norm/heads" in rows[0]
    groups = {group["role"]: group for group in trainer.updater.optimizer.param_groups}
    assert groups["heads"]["lr"] == pytest.approx(3 * groups["policy"]["lr"])
    assert sum(p.numel() for p in groups["heads"]["params"]) == 33


@pytest.mark.parametrize("objective", ["toy_valued", "toy_masked"])
def test_heads_resume_to_the_bit_and_are_exact_over_shares(text_keys: Keys, objective: str) -> None:
    shape = {"batch_size": 2, "accumulation": 2, "checkpoint_every": 2}
    straight, expected = run(text_keys(objective, "straight", training=shape))
    keys = text_keys(objective, "broken", training=shape)
    for metrics in Trainer(build_recipe(keys)).steps():
        if metrics["step"] == 3:
            break
    resumed, _ = run(keys)
    first, second = (load_file(list_checkpoints(t.output)[-1] / "heads.safetensors") for t in (straight, resumed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert any(bool((tensor != tensor.flatten()[0]).any()) for tensor in first.values())
    for changes in ({"batch_size": 4}, {"batch_size": 1, "accumulation": 4, "replay": "always"}):
        _, rows = run(text_keys(objective, f"other-{changes['batch_size']}", training=changes))
        for row, wanted in zip(rows, expected, strict=True):
            assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-4, abs=1e-5)


def test_masks_start_at_one_and_are_saved_and_read_back(text_keys: Keys, tmp_path: Path) -> None:
    trainer, _ = run(text_keys("toy_masked"))
    rows = trainer.plan.method.prepare(trainer.batches.batch([(0, 0), (1, 0)]), trainer.updater.context)
    outputs = {name: trainer.roles[name](rows) for name in trainer.plan.asked}
    names = ["policy_chosen_token_weight", "chosen_token_mask", "policy_chosen_token_kl_weight"]
    values = trainer.updater.likelihood(names, outputs, rows)
    weight, mask = values[names[0]], values[names[1]]
    assert (weight >= 0).all() and (weight[mask == 0] == 0).all() and not torch.equal(weight, mask)
    fresh = Trainer(build_recipe(text_keys("toy_masked", "fresh")))
    fresh.setup()
    outputs = {name: fresh.roles[name](rows) for name in fresh.plan.asked}
    torch.testing.assert_close(fresh.updater.likelihood(names[:1], outputs, rows)[names[0]], mask)
    again, _ = run(text_keys("toy_masked", "again", adapter={"heads": str(trainer.output / "heads")}))
    saved = load_heads(trainer.output / "heads").state_dict()
    assert again.family.heads.says == {"token_weight", "token_kl_weight"}
    assert any(not torch.equal(again.family.heads.state_dict()[name], saved[name]) for name in saved)
    assert (tmp_path / "run" / "heads" / "heads.json").is_file()


def test_no_gradient_of_a_head_reaches_the_model(text_keys: Keys) -> None:
    trainer = Trainer(build_recipe(text_keys("toy_valued")))
    trainer.setup()
    rows = trainer.plan.method.prepare(trainer.batches.batch([(0, 0)]), trainer.updater.context)
    value = trainer.roles["policy"](rows, grad=True)["token_value"]
    assert torch.autograd.grad(value.sum(), trainer.updater.trained, allow_unused=True) == (None,) * len(
        trainer.updater.trained
    )


def test_activation_masks_lie_between_0_and_1_within_each_answer(text_keys: Keys) -> None:
    trainer, rows = run(text_keys("toy_activated"))
    assert rows[-1]["loss"] < rows[0]["loss"] and trainer.family.heads is None
    layers = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0))
    row = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    weights = activation_weights(layers, row, 4)
    for answer in (0, 1):
        own, means = weights[row == answer], layers[row == answer].mean(dim=-1)
        score = ((means - means.mean(dim=0)) / means.std(dim=0, unbiased=False)).mean(dim=1)
        torch.testing.assert_close(own, (score - score.min()) / (score.max() - score.min()))
    assert weights[6] == 1.0


def test_heads_are_refused_where_they_say_nothing_or_do_not_fit(text_keys: Keys, tmp_path: Path) -> None:
    save_heads(Heads(8, 2, frozenset({"token_value"})), tmp_path / "small")
    with pytest.raises(DiffprefError, match="holds heads of another model"):
        run(text_keys("toy_valued", adapter={"heads": str(tmp_path / "small")}))
    with pytest.raises(DiffprefError, match="asks nothing of a head"):
        run(text_keys("dpo", adapter={"heads": str(tmp_path / "small")}))
    with pytest.raises(ModelError, match="holds no heads that can be loaded"):
        load_heads(tmp_path / "absent")


@pytest.mark.parametrize("objective", ["bradley_terry", "gpm", "sparsepo"])
def test_objectives_of_heads_train_by_name(text_keys: Keys, objective: str) -> None:
    shape = {"steps": 8, "batch_size": 8}
    trainer, rows = run(text_keys(objective, training=shape, adapter={"head_size": 2}))
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["grad_norm/heads"] > 0 and rows[-1]["grad_norm"] > 0
    saved = load_heads(trainer.output / "heads")
    assert saved.says == trainer.family.heads.says and saved.size == 2
    _, expected = run(text_keys(objective, "shares", training={"steps": 8, "batch_size": 2, "accumulation": 4}))
    for row, wanted in zip(expected, rows, strict=True):
        if objective != "gpm":  # whose size is another there
            assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("even", [False, True])
def test_a_score_is_of_the_last_token_of_its_row(even: bool) -> None:
    from diffpref.core.contracts import Conditioning, Rows
    from diffpref.models.attention import set_attention
    from diffpref.models.families.causal_lm import CausalLM

    family = CausalLM.tiny()
    assert set_attention(family.network, "auto") == "rows"
    family.even = even
    family.install_heads(frozenset({"score"}))
    assert family.heads is not None
    torch.nn.init.normal_(family.heads.parts["score_weight"], generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[3, 4, 5, 6, 7], [3, 4, 8, 0, 0], [0, 0, 0, 0, 0]])
    labels = torch.tensor([[-100, -100, 5, 6, 7], [-100, -100, 8, -100, -100], [-100] * 5])
    told = Conditioning({"attention_mask": (ids > 0).long()})
    asked = Rows("tokens", {"ids": ids, "labels": labels}, told, {"": torch.arange(3)})
    found = family.answer(family.network, asked, frozenset({"score"}), trained=True)["score"]
    for number, length in enumerate((5, 3)):
        state = family.network.base_model(ids[number : number + 1, :length]).last_hidden_state[0, -1]
        torch.testing.assert_close(found[number], (family.heads.parts["score_weight"][0] * state).sum())


def test_what_gpm_trained_is_a_judge_of_answers(text_keys: Keys) -> None:
    """Its loss on a pair is the negative logarithm of the judge's probability."""
    from diffpref import rewards
    from diffpref.rewards.gpm import odds

    shape = {"steps": 12, "batch_size": 8}
    trainer, _ = run(text_keys("gpm", training=shape, adapter={"head_size": 4}))
    judge = rewards.load("gpm", str(trainer.output), template="plain")
    prompts = [f"{n}? " for n in range(8)]
    chosen, rejected = ["yes " * (1 + n % 2) for n in range(8)], ["no, no"] * 8
    wins = judge.compare(chosen, rejected, prompts)
    assert wins.min() > 0.9 and torch.allclose(
        wins + judge.compare(rejected, chosen, prompts), torch.ones(8), atol=1e-5
    )
    rows = trainer.plan.method.prepare(trainer.batches.batch([(n, 0) for n in range(8)]), trainer.updater.context)
    said = trainer.roles["policy"](rows)["embedding"]
    expected = odds(*(said[rows.groups[side]] for side in ("chosen", "rejected"))).sigmoid()
    assert torch.allclose(wins.sort().values, expected.detach().sort().values, atol=1e-4)
