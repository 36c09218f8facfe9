"""Training with a bank gives the bits of training without, and never reads what another setting wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffpref.cache import row_keys
from diffpref.cli import main
from diffpref.config import Recipe, build_recipe, save_recipe
from diffpref.core.contracts import Batch, Context, Ema, Every, Judgement, RoleSpec, Rows, Snapshots
from diffpref.core.errors import ConfigError
from diffpref.data import read_store, write_store
from diffpref.likelihood import DenoisingLikelihood
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.objectives import compose, objective, registry
from diffpref.training import Trainer
from diffpref.training.banking import answering, refusals
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
KINDS = ({"kind": "lora", "rank": 4, "alpha": 16.0}, {"kind": "full"})


def exact(trainer: Trainer) -> list[dict[str, Any]]:
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
        for row in read_metrics(trainer.output / "metrics.jsonl")
    ]


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainer.updater.trained])


def run(keys: dict[str, Any], live: bool = False) -> Trainer:
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    if live:
        trainer.roles.update({name: role.role for name, role in trainer.banked.items()})
    trainer.fit()
    return trainer


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
def test_the_bank_gives_the_bits_of_the_live_reference(
    recipe_keys: Keys, adapter: dict[str, Any], tmp_path: Path
) -> None:
    """Two epochs with one draw a record, in another order each: 16 pairs are four updates."""
    common = {"adapter": adapter, "bank": {"slots": 1, "folder": str(tmp_path / "bank")}}
    shape = {"steps": 8, "batch_size": 2, "accumulation": 2}
    banked = run(recipe_keys(output=str(tmp_path / "banked"), training=shape, **common))
    live = run(recipe_keys(output=str(tmp_path / "live"), training=shape, **common), live=True)
    items = [banked.batches.sampler.batch(step, 4) for step in range(8)]
    orders = [[index for part in items[start : start + 4] for index, _ in part] for start in (0, 4)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert banked.banked["reference"].counts == {"asked": 32, "read": 32}
    assert exact(banked) == exact(live) and torch.equal(weights(banked), weights(live))
    assert exact(banked)[-1]["rewards/margins"] != exact(banked)[0]["rewards/margins"]
    third = run(recipe_keys(output=str(tmp_path / "third"), training=shape, **common))
    assert third.banked["reference"].counts == {"asked": 0, "read": 64} and exact(third) == exact(live)


def test_a_record_sees_as_many_draws_as_there_are_slots(recipe_keys: Keys, tmp_path: Path) -> None:
    trainer = Trainer(build_recipe(recipe_keys(bank={"slots": 2, "folder": str(tmp_path / "bank")})))
    trainer.setup()
    prepared = [
        trainer.plan.method.prepare(trainer.batches.batch([(3, visit)]), trainer.updater.context).inputs["noisy"]
        for visit in range(4)
    ]
    assert torch.equal(prepared[0], prepared[2]) and torch.equal(prepared[1], prepared[3])
    assert not torch.equal(prepared[0], prepared[1])
    assert trainer.batches.keys([(3, 5)])[0][1] == 1


@pytest.mark.parametrize("adapter", KINDS, ids=["lora", "full"])
def test_a_run_broken_off_goes_on_with_its_bank_bit_by_bit(
    recipe_keys: Keys, tmp_path: Path, adapter: dict[str, Any]
) -> None:
    shape = {"steps": 10, "batch_size": 2, "accumulation": 2, "checkpoint_every": 3}

    def keys(name: str) -> dict[str, Any]:
        bank = {"slots": 1, "folder": str(tmp_path / f"bank-{name}")}
        return recipe_keys(output=str(tmp_path / name), adapter=adapter, training=shape, bank=bank)

    straight = run(keys("straight"))
    broken = Trainer(build_recipe(keys("broken")))
    for metrics in broken.steps():
        if metrics["step"] == 5:
            break  # two updates after the checkpoint; what the bank learnt in them is lost
    resumed = run(keys("broken"))
    assert exact(resumed) == exact(straight) and torch.equal(weights(resumed), weights(straight))
    # 16 pairs: after the checkpoint of update 3 the fourth one asks, the rest is read
    assert resumed.banked["reference"].counts == {"asked": 8, "read": 48}


def test_statistics_of_the_objective_go_on_after_a_resume(
    recipe_keys: Keys, tmp_path: Path, toy_objectives: None
) -> None:
    shape = {"steps": 6, "batch_size": 1, "accumulation": 2, "checkpoint_every": 2}
    common = {"objective": "toy_remembers", "training": shape, "optim__learning_rate": 1e-3}
    straight = run(recipe_keys(output=str(tmp_path / "straight"), **common))
    keys = recipe_keys(output=str(tmp_path / "broken"), **common)
    for metrics in Trainer(build_recipe(keys)).steps():
        if metrics["step"] == 5:
            break
    resumed = run(keys)
    assert exact(resumed) == exact(straight)
    assert int(resumed.updater.state["0.updates"]) == 6
    assert torch.equal(resumed.updater.state["0.mean"], straight.updater.state["0.mean"])


# ---------------------------------------------------------------- what decides an answer is part of where it lies


def place(trainer: Trainer, recipe: Recipe | None = None) -> str:
    """Return the fingerprint of a trainer's reference as its bank would be opened now."""
    digest = trainer.banked["reference"].open_bank(4).fingerprint["weights"]
    role, likelihood = trainer.moving.placed["reference"], trainer.updater.likelihood
    found = answering(recipe or trainer.recipe, role, str(digest), likelihood, trainer.device)
    return json.dumps(found, sort_keys=True)


def test_row_36_every_input_of_an_answer_is_part_of_the_banks_fingerprint(
    recipe_keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = recipe_keys(bank={"slots": 1, "folder": str(tmp_path / "bank")})
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    bank = trainer.banked["reference"].open_bank(4)
    changed: dict[str, str] = {}
    start = place(trainer)
    assert place(trainer) == start and trainer.banked["reference"].open_bank(4).folder == bank.folder
    assert trainer.banked["reference"].open_bank(8).folder != bank.folder
    changed["rows"] = "changed above"

    other = Trainer(build_recipe({**keys, "output": str(tmp_path / "other")}))
    other.setup()
    assert place(other) == start, "a run with the same settings shares the bank"
    moved = Trainer(build_recipe({**keys, "output": str(tmp_path / "moved")}))
    from diffpref.training import assembly as module

    opened = module.open_family

    def nudged(*arguments: Any) -> Any:
        family = opened(*arguments)
        if family.network is not None:
            with torch.no_grad():
                next(family.network.parameters()).view(-1)[0] += 1e-6
        return family

    monkeypatch.setattr(module, "open_family", nudged)
    moved.setup()
    monkeypatch.setattr(module, "open_family", opened)
    changed["weights"] = place(moved)
    trained = trainer.updater.trained[0]
    trained.data += 1
    assert trainer.banked["reference"].open_bank(4).folder == bank.folder, "the policy is no part of its reference"

    half = build_recipe({**keys, "model": {**keys["model"], "precision": "bf16"}})
    changed["precision"] = place(trainer, half)
    compiled = trainer.recipe.model.model_copy(update={"compile": "regional"})
    changed["compiled"] = place(trainer, trainer.recipe.model_copy(update={"model": compiled}))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 7)
        changed["threads"] = place(trainer)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0")
        changed["versions"] = place(trainer)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        changed["device"] = place(trainer)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
        changed["kernels"] = place(trainer)
    family = trainer.recipe.model.model_copy(update={"family": "sd"})
    changed["family"] = place(trainer, trainer.recipe.model_copy(update={"model": family}))
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.updater.likelihood), "raw_names", ("errors", "more"))
        changed["kept"] = place(trainer)
    with monkeypatch.context() as patch:
        patch.setattr("diffpref.training.banking.FORMAT", 2)
        changed["format"] = place(trainer)
    processors = trainer.bare.attn_processors
    trainer.bare.set_attn_processor(type("Another", (type(next(iter(processors.values()))),), {})())
    changed["attention"] = place(trainer)
    changed["scales"] = "changed in the next test"
    trainer.bare.set_attn_processor(dict(processors))
    trainer.bare.register_to_config(norm_eps=1e-3)
    changed["network"] = place(trainer)
    assert changed.keys() == bank.fingerprint.keys(), "an input of the fingerprint that this test does not change"
    assert start not in changed.values() and len(set(changed.values())) == len(changed)


def hits(keys: dict[str, Any], **changes: Any) -> tuple[int, int]:
    """Return how many rows of an epoch a changed recipe finds in the bank, all of them right, and how many it has."""
    made = dict(keys)
    for path, value in changes.items():
        section, _, name = path.partition("__")
        made[section] = {**made.get(section, {}), name: value} if name else value
    trainer = Trainer(build_recipe(made))
    trainer.prepare()
    reference, context, size = trainer.banked["reference"], trainer.updater.context, trainer.recipe.training.batch_size
    hit = total = 0
    for start in range(0, 16, size):
        rows = trainer.plan.method.prepare(trainer.batches.batch([(i, 0) for i in range(start, start + size)]), context)
        found_keys = row_keys(rows)
        numbers, found = reference.open_bank(len(found_keys)).get(found_keys)
        if found.any():
            live = reference.likelihood.raw(reference.role(rows), rows)["errors"]
            assert torch.equal(torch.from_numpy(numbers[found, 0]), live[torch.from_numpy(found)]), "a wrong hit"
        hit, total = hit + int(found.sum()), total + len(found)
    return hit, total


def test_row_36_whatever_changes_a_row_is_a_miss_and_no_hit_is_wrong(
    recipe_keys: Keys, scored_store: Path, tmp_path: Path
) -> None:
    bank = {"slots": 1, "folder": str(tmp_path / "bank")}
    keys = recipe_keys(bank=bank, training={"steps": 8, "batch_size": 2}, adapter=KINDS[0])
    assert hits(keys) == (0, 32)
    run(keys)
    same: dict[str, dict[str, Any]] = {
        "nothing": {},
        "objective": {"objective": {"ipo": {}}},
        "optimiser": {"optim": {"learning_rate": 1e-3}},
        "adapter": {"adapter": {"kind": "full"}},
        "weighting": {"likelihood": {"weighting": "min_snr"}},
        "accumulation": {"training__accumulation": 4},
        "more draws": {"bank__slots": 3},
        "labels": {"data__source": flipped(scored_store, tmp_path / "flipped"), "data__score": None},
    }
    for name, change in same.items():
        assert hits(keys, **change) == (32, 32), name
    other: dict[str, dict[str, Any]] = {
        "seed": {"seed": 1},
        "noise offset": {"method": {"diffusion_dpo": {"noise_offset": 0.1}}},
        "input perturbation": {"method": {"diffusion_dpo": {"input_perturbation": 0.1}}},
        "rows in a forward": {"training__batch_size": 4},
        "resolution": {"data__resolution": 32},
        "views": {"data__random_flip": True, "data__views": 4, "seed": 2},
        "precision": {"model__precision": "bf16"},
    }
    for name, change in other.items():
        assert hits(keys, **change)[0] == 0, name
    some: dict[str, dict[str, Any]] = {  # rows that the change does not touch are found, and rightly
        "prompts but dropped ones": {"data__source": recaptioned(scored_store, tmp_path / "recaptioned")},
        "dropout": {"method": {"diffusion_dpo": {"empty_prompt_prob": 0.6}}},
        "timestep rule": {"method": {"diffusion_dpo": {"timestep_rule": "refiner"}}},
        "noise of the rejected": {"method": {"diffusion_dpo": {"share_noise": False}}},
    }
    for name, change in some.items():
        assert 0 < hits(keys, **change)[0] < 32, name


def flipped(store: Path, folder: Path) -> str:
    """Copy a store; the worst picture of each record is judged the best."""
    records = []
    for record in read_store(store):
        scores = [candidate.scores[0].value for candidate in record.candidates]
        judged = Judgement(scores.index(min(scores)), scores.index(max(scores)), 1.0)
        records.append(replace(record, judgements=(judged,)))
    write_store(folder, records)
    return str(folder)


def recaptioned(store: Path, folder: Path) -> str:
    write_store(folder, [replace(record, prompt=f"not {record.prompt}") for record in read_store(store)])
    return str(folder)


# ---------------------------------------------------------------- refusals


class FromPolicy(DiffusionDPO):
    """A method whose inputs depend on the policy."""

    def prepare(self, batch: Batch, context: Context) -> Rows:
        return replace(super().prepare(batch, context), depends_on=frozenset({"policy"}))


@pytest.fixture
def toys() -> Iterator[None]:
    from diffpref.methods import registry as methods

    def joint(*, chosen_kl: Tensor, reference_chosen_prediction: Tensor) -> Tensor:
        return chosen_kl + reference_chosen_prediction.flatten(1).mean(1)

    objective("toy_joint", kind="pointwise", source="ours", evidence="ours")(joint)
    methods.register("toy_from_policy")(FromPolicy)
    yield
    for held, name in ((registry, "toy_joint"), (methods, "toy_from_policy")):
        held._things.pop(name)
        held._origins.pop(name)


def test_rows_made_with_the_policy_are_refused(recipe_keys: Keys, toys: None, tmp_path: Path) -> None:
    bank = {"slots": 1, "folder": str(tmp_path / "bank")}
    keys = recipe_keys(method="toy_from_policy", objective="dpo", bank=bank)
    with pytest.raises(ConfigError, match=r"bank\.slots: must be 0 with a method that makes its inputs with a trained"):
        run(keys)


def test_roles_and_quantities_that_do_not_fit_a_bank_are_refused_before_anything_is_loaded(
    recipe_keys: Keys, toys: None
) -> None:
    with pytest.raises(ConfigError, match=r"bank\.roles: 'reference' is not asked anything .* Set bank\.slots to 0"):
        Trainer(build_recipe(recipe_keys(method="sft", bank__slots=1)))
    recipe = build_recipe(recipe_keys(bank={"slots": 1}))
    (line,) = refusals(recipe.bank, DiffusionDPO().roles, compose([("toy_joint", {})]), DenoisingLikelihood)
    assert "asks chosen_kl, reference_chosen_prediction of 'reference', which is more than a few numbers" in line

    dpo = compose([("dpo", {})])
    for moving in (
        RoleSpec(source="policy"),
        RoleSpec("copy", update="round"),
        RoleSpec("copy", Every(2)),
        RoleSpec("copy", Ema(0.9)),
        RoleSpec("copy", Snapshots(3)),
        RoleSpec("copy", trained=True),
    ):
        (line,) = refusals(recipe.bank, {"reference": moving}, dpo, DenoisingLikelihood)
        assert line.startswith("bank.roles: 'reference' moves while the run trains"), moving
    for bank, spec in ((recipe.bank, RoleSpec(in_prepare=True)), (build_recipe(recipe_keys()).bank, moving)):
        assert list(refusals(bank, {"reference": spec}, dpo, DenoisingLikelihood)) == []
    keys = recipe_keys(bank={"slots": 1}, roles={"reference": {"source": "copy", "update": {"ema": {"decay": 0.9}}}})
    with pytest.raises(ConfigError, match=r"bank\.roles: 'reference' moves while the run trains"):
        Trainer(build_recipe(keys))


def test_row_36_a_reference_with_another_lora_or_another_scale_of_it_is_another_bank(
    recipe_keys: Keys, tmp_path: Path
) -> None:
    start = run(recipe_keys(output=str(tmp_path / "start"), adapter=KINDS[0], optim__learning_rate=1e-2))
    places = set()
    for name, alpha in (("as it is", 16.0), ("another scale", 8.0)):
        folder = tmp_path / name
        shutil.copytree(start.output / "lora", folder)
        (file,) = folder.glob("*.safetensors")
        with safe_open(file, "pt") as held:
            metadata = {k: v.replace('lora_alpha": 16.0', f'lora_alpha": {alpha}') for k, v in held.metadata().items()}
            tensors = {key: held.get_tensor(key) for key in held.keys()}
        save_file(tensors, file, metadata)
        for output in ("one", "two"):
            keys = recipe_keys(adapter={"kind": "lora", "rank": 4, "start": str(folder)}, bank={"slots": 1})
            trainer = Trainer(build_recipe({**keys, "output": str(tmp_path / name / output)}))
            trainer.prepare()
            places.add(trainer.banked["reference"].open_bank(4).folder)
    plain = Trainer(build_recipe(recipe_keys(adapter=KINDS[0], bank={"slots": 1})))
    plain.prepare()
    assert len(places) == 2 and plain.banked["reference"].open_bank(4).folder not in places


# ---------------------------------------------------------------- ahead of training


def test_a_bank_filled_ahead_is_complete_and_goes_on_after_an_interruption(
    recipe_keys: Keys, scored_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = {"slots": 2, "folder": str(tmp_path / "bank")}
    shape = {"steps": 6, "batch_size": 3, "accumulation": 2}  # 16 pairs: the last forward is padded
    recipe = build_recipe(recipe_keys(bank=bank, training=shape))
    save_recipe(recipe, tmp_path / "recipe.yaml")
    command = ["cache", str(scored_store), "--recipe", str(tmp_path / "recipe.yaml"), "--bank"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pairs"], told["slots"]) == (16, 2)
    assert told["reference"]["asked"] == 66 and told["reference"]["read"] == 0  # 11 forwards of 6 rows
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert main(command) == 0
    assert "reference: 0 rows asked, 66 already there" in capsys.readouterr().out
    trainer = run(recipe_keys(bank=bank, training=shape))
    assert trainer.banked["reference"].counts["asked"] == 0
    assert main([*command, "--recipe", str(save(recipe_keys(), tmp_path))]) == 2
    assert "bank.slots: must be > 0 to fill a bank" in capsys.readouterr().err
    assert main([*command, "--device", "cpu"]) == 2


def save(keys: dict[str, Any], folder: Path) -> Path:
    save_recipe(build_recipe(keys), folder / "plain.yaml")
    return folder / "plain.yaml"
