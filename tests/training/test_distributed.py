"""Two processes are one with twice the batch, and a run goes on under any number of them and any way to share it out.

``ddp`` holds all weights in each process, ``fsdp2`` spreads them. One launch, by the real launcher, runs all checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from diffpref.config import build_recipe, load_recipe, save_recipe
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints, open_checkpoint
from diffpref.training.log import read_metrics

pytestmark = pytest.mark.slow

PEER = {"method": {"toy_ofs": {"swap_always": True}}, "objective": {"toy_ofs": {"beta": 20.0}}}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"kind": "lora", "rank": 4, "alpha": 16.0}},
    "full": {"adapter": {"kind": "full"}},
    "moving": {"adapter": {"kind": "full"}, "roles": {"reference": {"update": {"ema": {"decay": 0.5}}}}},
    "peer": {"adapter": {"kind": "lora", "rank": 4}, **PEER},
    "two networks": {"adapter": {"kind": "full"}, **PEER},
    "pool": {"adapter": {"kind": "full"}, "method": "toy_seppo", "objective": {"toy_seppo": {"beta": 20.0}}},
}
SEEN_WHOLE: dict[str, dict[str, Any]] = {  # objectives that couple the records of an update
    "coupled": {"objective": "toy_anchored"},
    "statistics": {"objective": "toy_remembers"},
    "single samples": {"objective": ["toy_labelled", "toy_labels_remembered"], "method": "denoising"},
    "lists": {"objective": "toy_rank_coupled", "method": {"denoising": {"draws": 2}}},
}
TOGETHER = {"coupled": "ddp", "statistics": "fsdp2", "single samples": "ddp", "lists": "fsdp2"}
STEPS = 4
TRAINED = (
    *(("ddp", kind) for kind in ("lora", "full", "peer", "two networks")),
    *(("fsdp2", kind) for kind in ("lora", "moving", "two networks", "pool")),
)
CHAINED = ("lora", "moving")
KEPT = {"gradient_checkpointing": True}
COMPILED = {**KEPT, "compile": "regional", "compile_backend": "aot_eager"}
MATRIX = [(way, kind, KEPT) for way in ("ddp", "fsdp2") for kind in ("lora", "full")]
WHAT = {"lora": "gradient", "full": "loss"}
MATRIX += [("ddp", "full", COMPILED), ("fsdp2", "lora", COMPILED)]
Keys = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def keys(toy_methods: None, tiny_sdxl: Path, scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Make the keys of a recipe of 8 records an update; its beta keeps rounding small."""
    folder = tmp_path_factory.mktemp("runs")

    def make(name: str, kind: str, size: int, accumulation: int, **changes: Any) -> dict[str, Any]:
        shape = {
            "steps": STEPS,
            "batch_size": size,
            "accumulation": accumulation,
            "checkpoint_every": int(name == "chain"),
        }
        if kind == "moving":
            shape["ema"] = {"decay": 0.5}
        if kind == "bank":
            changes["bank"] = {"slots": 1, "folder": str(folder / f"bank-{name}")}
        return {
            "output": str(folder / f"{name}-{kind}"),
            "model": {"family": "sdxl", "path": str(tiny_sdxl)},
            "data": {"source": str(scored_store), "score": "oracle", "cache": str(folder / "cache")},
            "method": "diffusion_dpo",
            "optim": {"learning_rate": 1e-4},
            "objective": {"dpo": {"beta": 20}},
            "training": shape,
            **(KINDS | SEEN_WHOLE).get(kind, {}),
            **changes,
        }

    return make


def fit(keys: dict[str, Any]) -> Path:
    return Trainer(build_recipe(keys)).fit()


def assert_same_run(output: Path, expected: Path) -> None:
    """Metrics, weights and moments agree to 1e-5 relative."""
    ours, theirs = (read_metrics(folder / "metrics.jsonl") for folder in (output, expected))
    assert len(ours) == len(theirs) == STEPS
    for row, wanted in zip(ours, theirs, strict=True):
        assert row.keys() == wanted.keys()
        for name in {name for name in wanted if not name.startswith("perf/")}:
            assert row[name] == pytest.approx(wanted[name], rel=1e-5, abs=1e-5), (row["step"], name)
    for path in list_checkpoints(expected)[-1].glob("*.safetensors"):
        found, wanted = load_file(list_checkpoints(output)[-1] / path.name), load_file(path)
        assert found.keys() == wanted.keys()
        kinds = {name.rpartition(".")[2] if path.stem == "optimizer" else "" for name in wanted}  # each kind of moment
        for kind in kinds:
            names = sorted(name for name in wanted if name.endswith(kind))
            first, second = (torch.cat([s[n].reshape(-1).double() for n in names]) for s in (found, wanted))
            assert (first - second).norm() <= 1e-5 * second.norm(), (path.stem, kind)


def first_update(keys: Keys, name: str, kind: str, model: dict[str, Any], accumulation: int) -> dict[str, Any]:
    """Return the arguments of ``first_gradient``; by one process or two the update has two forwards of two records."""
    made = keys(name, kind, 2, accumulation)
    made["model"] |= model
    made["optim"] |= {"max_grad_norm": 1e9}
    made["objective"] = {"dpo": {"beta": 5000}}
    return {"keys": made, "save": f"{made['output']}.safetensors", "only_middle": "compile" in model}


@pytest.fixture(scope="module")
def two(
    keys: Keys, run_together: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """Launch two processes once; name of a check -> what each process said."""
    pictures = {"prompts": ["a red circle"], "every": 1, "num_inference_steps": 1}
    recipe = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    save_recipe(build_recipe(keys("command", "lora", 2, 2, validation=pictures)), recipe)
    asked: dict[str, tuple[str, dict[str, Any], str]] = {}
    for way, kind in TRAINED:
        asked[f"{way} {kind}"] = ("train", {"keys": keys(way, kind, 2, 2)}, way)
    for kind in CHAINED:
        next(Trainer(build_recipe(keys("chain", kind, 8, 1))).steps())  # the first update by one process
        asked[f"chain ddp {kind}"] = ("train", {"keys": keys("chain", kind, 2, 2), "steps": 1}, "ddp")
        asked[f"chain fsdp2 {kind}"] = ("train", {"keys": keys("chain", kind, 1, 4), "steps": 1}, "fsdp2")
    for number, (way, kind, model) in enumerate(MATRIX):
        asked[f"first {number}"] = ("first_gradient", first_update(keys, f"first{number}", kind, model, 1), way)
        if model is KEPT:
            asked[f"no {number}"] = ("not_finite", {"keys": keys(f"no{number}", kind, 2, 1), "what": WHAT[kind]}, way)
    for kind, way in TOGETHER.items():
        asked[kind] = ("train", {"keys": keys("two", kind, 1, 4)}, way)
    asked["bank"] = ("banked", {"keys": keys("two", "bank", 2, 2)}, "fsdp2")
    asked["other number"] = ("refused", {"keys": keys("chain", "lora", 4, 4)}, "ddp")
    unsaved = {name: keys(name, "lora", 1, 1) for name in ("stopped", "disk full")}
    for made in unsaved.values():
        made["training"]["checkpoint_every"] = 0
    asked["stopped"] = ("stopped", {"keys": unsaved["stopped"], "number": 15, "rank": 1}, "ddp")
    asked["disk full"] = ("disk_full", {"keys": unsaved["disk full"]}, "ddp")
    asked["command"] = (
        "command",
        {"argv": ["train", str(recipe), "--training.steps", "1", "--model.precision", "fp16"]},
        "fsdp2",
    )
    found = run_together(list(asked.values()))
    return {name: [process[i] for process in found] for i, name in enumerate(asked)}


@pytest.fixture(scope="module")
def one(keys: Keys) -> dict[str, Path]:
    """The same runs by one process that takes all records at once."""
    return {kind: fit(keys("one", kind, 8, 1)) for kind in KINDS}


def test_no_check_failed_on_any_process(two: dict[str, list[Any]]) -> None:
    assert {name: [a.get("traceback") for a in answers if "error" in a] for name, answers in two.items()} == {
        name: [] for name in two
    }


@pytest.mark.parametrize(("way", "kind"), TRAINED)
def test_row_09_two_processes_are_one_with_twice_the_batch(
    two: dict[str, list[Any]], one: dict[str, Path], keys: Keys, way: str, kind: str
) -> None:
    assert_same_run(Path(keys(way, kind, 2, 2)["output"]), one[kind])


@pytest.mark.parametrize("kind", CHAINED)
def test_row_09_a_run_goes_on_under_one_process_two_that_hold_all_and_two_that_share(
    two: dict[str, list[Any]], one: dict[str, Path], keys: Keys, kind: str
) -> None:
    """One update each by 1 x 8 x 1, 2 x 2 x 2 (DDP), 2 x 1 x 4 (FSDP2), and 1 x 2 x 4 (processes x batch x steps)."""
    output = Path(keys("chain", kind, 2, 4)["output"])
    assert [row["step"] for row in read_metrics(output / "metrics.jsonl")] == [1, 2, 3]
    assert_same_run(fit(keys("chain", kind, 2, 4)), one[kind])
    assert load_recipe(output / "config.yaml").training.records_per_update == 8


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_margins_start_at_zero_and_the_first_gradient_is_the_plain_one(
    two: dict[str, list[Any]], keys: Keys, checks: Any, kind: str
) -> None:
    """Under two processes that hold or share all, with activations recomputed after the reference, or compiled too."""
    plain = first_update(keys, "plain", kind, {}, 2)
    metrics = checks.first_gradient(**plain)
    wanted = load_file(plain["save"])
    size = sum(tensor.double().square().sum() for tensor in wanted.values()) ** 0.5
    assert metrics["grad_norm"] > 0
    for number, case in enumerate(MATRIX):
        if case[1] != kind:
            continue
        for answer in two[f"first {number}"]:
            told = answer["value"]
            assert told["rewards/margins"] == told["rewards/chosen"] == told["errors/chosen_vs_reference"] == 0.0, case
            assert told["grad_norm"] == pytest.approx(metrics["grad_norm"], rel=1e-6), case
        found = load_file(first_update(keys, f"first{number}", kind, case[2], 1)["save"])
        assert found.keys() == wanted.keys()
        away = sum((found[n] - wanted[n]).double().square().sum() for n in wanted) ** 0.5
        assert away <= 1e-6 * size, (case, away / size)


@pytest.mark.parametrize("kind", ["lora", "moving"])
def test_each_process_holds_its_share_of_every_network_and_of_the_moments(two: dict[str, list[Any]], kind: str) -> None:
    for part in ("policy", "reference", "moments"):
        shares = [answer["value"][part] for answer in two[f"fsdp2 {kind}"]]
        assert sum(shares) == pytest.approx(1.0) and max(shares) < 0.6, part
        assert [answer["value"][part] for answer in two["ddp lora"]] == [1.0, 1.0]


@pytest.mark.parametrize("kind", SEEN_WHOLE)
def test_an_objective_that_sees_whole_updates_is_the_same_under_one_process_and_two(
    two: dict[str, list[Any]], keys: Keys, kind: str, toy_objectives: None
) -> None:
    """8 x 1 by one process, 1 x 4 by each of two: also the running statistics in the checkpoint agree."""
    whole = fit(keys("one", kind, 8, 1))
    assert_same_run(Path(keys("two", kind, 1, 4)["output"]), whole)
    assert (list_checkpoints(whole)[-1] / "objective_state.safetensors").exists() == (
        kind in ("statistics", "single samples")
    )


def test_processes_fill_one_bank_and_each_reads_what_the_other_learnt(two: dict[str, list[Any]], keys: Keys) -> None:
    # two epochs in another order each; 4 rows in a forward, two forwards an update and process
    assert [answer["value"] for answer in two["bank"]] == [{"asked": 16, "read": 16}] * 2
    assert_same_run(Path(keys("two", "bank", 2, 2)["output"]), fit(keys("one", "bank", 8, 1)))
    again = {**keys("two", "bank", 2, 2), "output": keys("again", "bank", 2, 2)["output"]}
    trainer = Trainer(build_recipe(again))
    trainer.fit()
    assert trainer.banked["reference"].counts == {"asked": 0, "read": 32}  # one process, one epoch


def test_row_09_another_number_of_records_an_update_is_refused_on_every_process(two: dict[str, list[Any]]) -> None:
    first, second = (answer["value"] for answer in two["other number"])
    assert first.endswith("training.records_per_update: 8 -> 32")
    assert second == "DiffprefError: stopped with the first process, which says why"


def test_row_03_a_signal_to_one_process_stops_both_after_the_same_update(two: dict[str, list[Any]], keys: Keys) -> None:
    first, second = (answer["value"] for answer in two["stopped"])
    output = Path(keys("stopped", "lora", 1, 1)["output"])
    (saved,) = list_checkpoints(output)
    assert open_checkpoint(saved).step == first["step"] == second["step"] == 2
    assert first["code"] == second["code"] == 143
    assert first["told"].startswith(f"stopped by SIGTERM after update 2 of 4; saved in {saved};") and not second["told"]


def test_row_04_a_disk_that_is_full_for_one_process_stops_both(two: dict[str, list[Any]]) -> None:
    first, second = (answer["value"] for answer in two["disk full"])
    assert first.startswith("DiskFullError: ") and "step-000001: no space left" in first
    assert second == "DiffprefError: stopped with the first process, which says why"


@pytest.mark.parametrize("kind", ["lora", "moving"])
def test_what_two_processes_that_share_trained_loads_in_plain_diffusers(
    two: dict[str, list[Any]], one: dict[str, Path], keys: Keys, tiny_sdxl: Path, kind: str
) -> None:
    """The result is that of one process, as a stock pipeline sees it."""
    seen = []
    for output in (Path(keys("fsdp2", kind, 2, 2)["output"]), one[kind]):
        pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, use_safetensors=True)
        if kind == "lora":
            pipe.load_lora_weights(output / "lora")
            network = pipe.unet
        else:
            network = UNet2DConditionModel.from_pretrained(output / "model", use_safetensors=True)
        generator = torch.Generator().manual_seed(0)
        added = {"text_embeds": torch.randn(1, 16, generator=generator), "time_ids": torch.full((1, 6), 64.0)}
        noisy, embeds = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 16, 32, generator=generator)
        with torch.no_grad():
            seen.append(network(noisy, 500, embeds, added_cond_kwargs=added).sample)
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("what", "kind"), [("loss", "full"), ("gradient", "lora")])
def test_row_10_and_11_what_is_not_finite_in_one_process_stops_both_and_changes_nothing(
    two: dict[str, list[Any]], keys: Keys, what: str, kind: str
) -> None:
    for number, case in enumerate(MATRIX):
        if case[1] != kind or case[2] is not KEPT:
            continue
        for answer in two[f"no {number}"]:
            told = answer["value"]["told"]
            assert f"update 2: the {what}" in told and "nothing was changed" in told, (case, told)
            assert answer["value"]["unchanged"] and answer["value"]["step"] == 1, case
            assert answer["value"]["left out"] == [False, 1.0] and answer["value"]["goes on"], case
        output = Path(keys(f"no{number}", kind, 2, 1)["output"])
        (update,) = json.loads((output / "nonfinite.json").read_text())["updates"]  # the skip wrote over the stop
        assert (update["update"], update["what"]) == (2, what)
        told_of = [(record["rank"], record["finite"]) for record in update["records"]]
        assert told_of == [(0, True)] * 2 + [(1, what == "gradient")] * 2


def test_the_command_trains_and_draws_under_a_launcher_and_one_process_speaks(
    two: dict[str, list[Any]], keys: Keys
) -> None:
    output = Path(keys("command", "lora", 2, 2)["output"])
    assert (output / "samples/step-000001.png").stat().st_size > 1000
    (row,) = read_metrics(output / "metrics.jsonl")
    assert row["rewards/margins"] == 0.0 and row["grad_norm"] > 0  # in half precision too
    said = [answer["value"] for answer in two["command"]]
    assert [text.count("trained 1 updates") for text in said] == [1, 0]
